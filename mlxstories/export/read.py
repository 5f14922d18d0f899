"""An exported directory as a run again."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlxstories.data.tokenizer import Tokenizer
from mlxstories.errors import StoriesError
from mlxstories.export.model_type import Arrays, ModelType
from mlxstories.export.model_types import MODEL_TYPES
from mlxstories.export.quantization import dequantize
from mlxstories.export.tokenizer import restored
from mlxstories.model import ModelConfig, Transformer, parameter_count
from mlxstories.optim import build_optimizer
from mlxstories.runs import checkpoints
from mlxstories.runs.directory import Run
from mlxstories.storage.files import PARTIAL, sync, writing
from mlxstories.storage.serialize import from_dict, read_json, to_dict
from mlxstories.training.phases import PHASE_1, Phase
from mlxstories.training.progress import Progress


def import_model(source: Path, path: Path) -> Run:
    """Make the new run ``path`` of the directory ``source`` that `export` or mlx-lm wrote.

    The run stands at step 0 with the weights as they are and a fresh optimiser. It keeps the recipe that an export
    carries in its ``config.json``, so that ``train --resume`` trains it on; without one it can be sampled from.

    Raises:
        StoriesError: the directory is no such model, or ``path`` exists.
    """
    source, path = Path(source), Path(path)
    model, tokenizer, own = _read(source)
    came_from = {"directory": str(source), "name": own.pop("name", None), **own.pop("checkpoint")}
    recipe = {
        **own,
        "model": to_dict(model.config),
        "parameters": parameter_count(model),
        "imported": came_from,
    }
    if path.exists():
        raise StoriesError(f"run {path} exists already: choose another --name.")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = {"prefix": f".{path.name}.", "suffix": PARTIAL, "dir": path.parent}
        with tempfile.TemporaryDirectory(**hidden) as staging:
            run = Run.create(Path(staging) / path.name, recipe, tokenizer)
            _save_first(run, model, came_from.get("loss"))
            run.path.rename(path)
        sync(path.parent)
    return Run(path)


def is_exported(path: Path) -> bool:
    """Whether a directory looks like an exported model and not like a run."""
    file = path / "config.json"
    described = read_json(file) if file.is_file() else None
    return isinstance(described, dict) and "model_type" in described


def read_model(source: Path) -> tuple[Transformer, Tokenizer]:
    """The model of an exported directory, in evaluation mode, and its tokenizer.

    Raises:
        StoriesError: the directory is no such model.
    """
    model, tokenizer, _ = _read(source)
    model.eval()
    return model, tokenizer


def _read(source: Path) -> tuple[Transformer, Tokenizer, dict[str, Any]]:
    """The model, its tokenizer, and what an export of ours says of it."""
    if not os.path.isdir(source):  # which, unlike Path, takes a name too long for one that is not there
        wrong = "is no directory" if os.path.exists(source) else "does not exist"
        raise StoriesError(f"{source} {wrong}: give the directory that `mlxstories export` wrote.")
    for name in ("config.json", "tokenizer.json"):
        if not (source / name).is_file():
            raise StoriesError(f"{source} has no {name}: it is not what `mlxstories export` or mlx-lm wrote.")
    described = read_json(source / "config.json")
    if isinstance(described, dict) and "format" in described and "model_type" not in described:
        raise StoriesError(
            f"{source} is a run already and needs no import: mlxstories sample {source} tells its stories, and "
            f"mlxstories train --from {source} goes on from its weights."
        )
    kind = MODEL_TYPES.get(str(described.get("model_type"))) if isinstance(described, dict) else None
    if kind is None:
        raise StoriesError(
            f"the model type of {source / 'config.json'} is none of {', '.join(MODEL_TYPES)}: it cannot be imported."
        )
    own = _object(described.get("mlxstories"), f"{source / 'config.json'}: mlxstories")
    own["checkpoint"] = _object(own.get("checkpoint"), f"{source / 'config.json'}: mlxstories.checkpoint")
    config = _model_config(source, kind, described, own)
    tokenizer = _tokenizer(source, config)
    model = Transformer(config)
    weights = _weights(source, kind, described, config)
    try:
        model.load_weights(list(weights.items()), strict=True)
    except ValueError as error:
        raise StoriesError(f"the weights of {source} do not fit its config.json: {error}") from error
    mx.eval(model.parameters())
    return model, tokenizer, own


def _object(value: Any, name: str) -> dict[str, Any]:
    """A JSON object, empty where there is none; StoriesError if it is something else."""
    if not isinstance(value or {}, dict):
        raise StoriesError(f"{name} must be an object; got {value!r:.80}.")
    return value or {}


def _model_config(source: Path, kind: ModelType, described: dict, own: dict) -> ModelConfig:
    where = f"{source / 'config.json'}"
    if "model" in own:
        return from_dict(ModelConfig, own["model"], f"{where}, mlxstories.model")
    try:
        return kind.read(described)
    except KeyError as error:
        raise StoriesError(f"{where} lacks {error.args[0]}, which a {kind.model_type} has.") from error
    except (TypeError, ValueError) as error:
        raise StoriesError(f"{where}: {error}.") from error


def _tokenizer(source: Path, config: ModelConfig) -> Tokenizer:
    file = source / "tokenizer.json"
    try:
        tokenizer = restored(read_json(file))
    except StoriesError as error:
        raise StoriesError(f"{file}: {error}") from error
    if tokenizer.vocab_size != config.vocab_size:
        raise StoriesError(
            f"{file} has {tokenizer.vocab_size} tokens and the model {config.vocab_size}: they belong to two models."
        )
    return tokenizer


def _weights(source: Path, kind: ModelType, described: dict, config: ModelConfig) -> Arrays:
    arrays: Arrays = {}
    files = sorted(file for file in source.glob("model*.safetensors") if file.is_file())
    if not files:
        raise StoriesError(f"{source} has no model.safetensors: it is not a whole exported model.")
    try:
        for file in files:
            arrays |= mx.load(str(file))
        if quantization := described.get("quantization"):
            arrays = dequantize(arrays, quantization)
        arrays = {name: array.astype(mx.float32) for name, array in arrays.items()}
        return kind.restore(arrays, config)
    except KeyError as error:
        raise StoriesError(f"{source} lacks the weights {error.args[0]}.") from error
    except (RuntimeError, ValueError) as error:
        raise StoriesError(f"the weights of {source} cannot be read: {error}.") from error


def _save_first(run: Run, model: nn.Module, loss: float | None) -> None:
    phase = run.config.get("phase")
    phase = PHASE_1 if phase is None else from_dict(Phase, phase, f"{run.path}/config.json, phase")
    optimizer = build_optimizer(phase.optimizer)
    optimizer.init(model.trainable_parameters())
    state = {"step": 0, "val_loss": loss, "seed": run.config.get("seed", 0), "progress": vars(Progress())}
    checkpoints.save(run, model, optimizer, state)
