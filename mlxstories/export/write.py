"""A run as a directory that mlx-lm and transformers load."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxstories.data.tokenizer import END
from mlxstories.errors import StoriesError
from mlxstories.export.card import beginning, card, scores
from mlxstories.export.model_types import model_type_of
from mlxstories.export.quantization import quantize
from mlxstories.export.tokenizer import PADDING, tokenizer_config, tokenizer_json
from mlxstories.model import ModelConfig
from mlxstories.runs.checkpoints import load_model, save_arrays
from mlxstories.runs.directory import Run
from mlxstories.storage.files import new_directory, write_json, write_text
from mlxstories.trees import by_path

DTYPES = ("float32", "bfloat16", "float16")


def export(
    run: Run, to: Path, *, which: str = "best", dtype: str = "float32", bits: int | None = None
) -> dict[str, Any]:
    """Write the run's model into the new directory ``to``, which appears whole or not at all.

    Args:
        which: the "best" or the "last" checkpoint.
        dtype: of the weights; "float32" keeps every bit.
        bits: 4 or 8 quantises the matrices, in a form that of the two mlx-lm alone reads.

    Returns:
        what was written: ``model_type``, ``step``, ``bytes`` of the weights, ``code``, the file that mlx-lm is
        to trust, if any, and ``prompt``, a beginning to try.

    Raises:
        StoriesError: no model type of mlx-lm fits the model, ``to`` holds something, or the run is damaged.
    """
    to = Path(to)
    if to.exists() and not (to.is_dir() and not any(to.iterdir())):
        raise StoriesError(f"{to} exists already and is not an empty directory: choose another --to.")
    checkpoint = run.checkpoint(which)
    model, tokenizer, config = load_model(run, checkpoint)
    kind, step = model_type_of(model.config), checkpoint.step
    arrays = kind.export(by_path(model.parameters()), model.config)
    arrays = {name: array.astype(getattr(mx, dtype)) for name, array in arrays.items()}
    described = {
        **config_of(model.config),
        **_special_ids(),
        "torch_dtype": dtype,
        "mlxstories": {**config, "checkpoint": {"step": step, **scores(run, step)}},
    }
    if kind.code:
        described["model_file"] = kind.code
    if bits is not None:
        arrays, described["quantization"] = quantize(kind.native(arrays), bits)
    with new_directory(to) as staging:
        save_arrays(staging / "model.safetensors", arrays)
        write_json(staging / "config.json", described)
        if kind.code:
            write_text(staging / kind.code, files(__package__).joinpath(kind.code).read_text("utf-8"))
        write_json(staging / "generation_config.json", _special_ids())
        write_json(staging / "tokenizer.json", tokenizer_json(tokenizer))
        write_json(staging / "tokenizer_config.json", tokenizer_config(model.config.context))
        write_text(staging / "README.md", card(run, to.name, described, tokenizer))
    return {
        "model_type": kind.model_type,
        "step": step,
        "bytes": sum(array.nbytes for array in arrays.values()),
        "code": kind.code,
        "prompt": beginning(run),
    }


def config_of(config: ModelConfig) -> dict[str, Any]:
    """What a ``config.json`` says of a model's shape, enough for mlx-lm to load its weights."""
    kind = model_type_of(config)
    return {
        "model_type": kind.model_type,
        "architectures": [kind.architecture],
        "vocab_size": config.vocab_size,
        **kind.describe(config),
    }


def _special_ids() -> dict[str, int]:
    return {"bos_token_id": END, "eos_token_id": END, "pad_token_id": PADDING}
