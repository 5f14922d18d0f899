"""Saving and restoring a run's weights and optimiser state, in safetensors and JSON alone."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.optimizers import Optimizer
from mlx.utils import tree_unflatten
from safetensors import SafetensorError, safe_open

from mlxstories.data.tokenizer import Tokenizer
from mlxstories.errors import StoriesError
from mlxstories.model import Transformer, build_model, read_config
from mlxstories.model.mlx_lm import MlxLmModel
from mlxstories.runs.checkpoint_state import ARRAY_FILES, Checkpoint
from mlxstories.runs.directory import Run
from mlxstories.storage.files import new_directory, remove_partial, sync
from mlxstories.trees import by_path

_DTYPES = {  # of the safetensors format
    mx.bool_: "BOOL",
    mx.uint8: "U8",
    mx.int8: "I8",
    mx.uint16: "U16",
    mx.int16: "I16",
    mx.uint32: "U32",
    mx.int32: "I32",
    mx.uint64: "U64",
    mx.int64: "I64",
    mx.float16: "F16",
    mx.bfloat16: "BF16",
    mx.float32: "F32",
    mx.float64: "F64",
    mx.complex64: "C64",
}


def save(
    run: Run, model: nn.Module, optimizer: Optimizer, state: dict[str, Any], keep: int = 2
) -> Checkpoint:
    """Write ``checkpoints/step-<n>``; keep the ``keep`` newest and the best one, delete the others.

    ``state`` needs ``step`` and ``val_loss`` (nats per token, or None). The metrics written so far are forced to the
    disk first, so that no checkpoint is newer than they are.
    """
    folder = run.file("checkpoints")
    remove_partial(folder)
    sync(run.file("metrics.jsonl"))
    checkpoint = Checkpoint(folder / f"step-{state['step']}", state)
    with new_directory(checkpoint.path) as staging:
        for name, tree in zip(ARRAY_FILES, (model.parameters(), optimizer.state), strict=True):
            save_arrays(staging / name, tree)
        checkpoint.write(staging)
    run.prune(keep)
    return checkpoint


def restore(checkpoint: Checkpoint, model: nn.Module, optimizer: Optimizer | None = None) -> None:
    """Load a checkpoint, verified by :meth:`Run.checkpoint`, into ``model`` and, for resuming, into ``optimizer``.

    Nothing is allocated before the files' headers agree with the model in every name, type and shape.

    Raises:
        StoriesError: it was made for another model, or cannot be read.
    """
    weights, moments = (checkpoint.path / name for name in ARRAY_FILES)
    model.load_weights(list(_load_arrays(weights, model.parameters()).items()), strict=True)
    if optimizer is not None:
        optimizer.init(model.trainable_parameters())
        optimizer.state = tree_unflatten(list(_load_arrays(moments, optimizer.state).items()))
    mx.eval(model.parameters())


def load_model(
    run: Run, which: str | Checkpoint = "best"
) -> tuple[Transformer | MlxLmModel, Tokenizer, dict[str, Any]]:
    """A trained model in evaluation mode, its tokenizer and the run's configuration.

    Args:
        which: the "best" or the "last" checkpoint, or one that :meth:`Run.checkpoint` gave.
    """
    config = run.config
    model = build_model(read_config(config.get("model"), f"{run.path}/config.json, model"))
    restore(run.checkpoint(which) if isinstance(which, str) else which, model)
    model.eval()
    return model, run.tokenizer(), config


def save_arrays(path: Path, tree: Any) -> None:
    """Write a tree of arrays as safetensors; OSError if that fails."""
    arrays = by_path(tree)
    try:
        mx.save_safetensors(str(path), arrays, metadata={"format": "mlx"})
    except RuntimeError as error:  # how MLX reports a failed write, without its cause
        if shutil.disk_usage(path.parent).free < sum(array.nbytes for array in arrays.values()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise OSError(str(error)) from error


def _load_arrays(path: Path, like: Any) -> dict[str, mx.array]:
    """The arrays of a safetensors file, which must be those of the tree ``like`` in name, type and shape."""
    wanted = {name: (_DTYPES[array.dtype], list(array.shape)) for name, array in by_path(like).items()}
    try:
        with safe_open(path, framework="np") as file:  # checks the header's size and all offsets
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            there = {name: (part.get_dtype(), part.get_shape()) for name, part in slices.items()}
        different = sorted(
            name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name)
        )
        if different:
            raise StoriesError(
                f"{path} does not fit this run: {', '.join(different[:3])} "
                f"{'differs' if len(different) == 1 else 'differ'} in name, type or shape"
                f"{f', and {len(different) - 3} more' if len(different) > 3 else ''}."
            )
        return cast("dict[str, mx.array]", mx.load(str(path)))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise StoriesError(f"{path} cannot be read: {error}.") from error
