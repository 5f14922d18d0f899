"""Saving and restoring a run's weights and optimiser state, in safetensors and JSON alone."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.optimizers import Optimizer
from mlx.utils import tree_flatten, tree_unflatten

from mlxstories.data.tokenizer import Tokenizer
from mlxstories.errors import StoriesError
from mlxstories.model import ModelConfig, Transformer
from mlxstories.runs import FORMAT, Checkpoint, Run, new_directory, write_json
from mlxstories.serialize import from_dict


def save(run: Run, model: nn.Module, optimizer: Optimizer, state: dict[str, Any]) -> Checkpoint:
    """Write ``checkpoints/step-<n>``; keep it and the best one, delete the others.

    ``state`` needs ``step`` and ``val_loss`` (nats per token, or None).
    """
    final = run.path / "checkpoints" / f"step-{state['step']}"
    with new_directory(final) as staging:
        _save_arrays(staging / "model.safetensors", model.parameters())
        _save_arrays(staging / "optimizer.safetensors", optimizer.state)
        sums = {file.name: _sha256(file) for file in sorted(staging.iterdir())}
        write_json(staging / "state.json", {"format": FORMAT, **state, "sha256": sums})
    keep = {final, run.checkpoint("best").path}
    for checkpoint in run.checkpoints():
        if checkpoint.path not in keep:
            shutil.rmtree(checkpoint.path)
    return Checkpoint(final, state)


def restore(checkpoint: Checkpoint, model: nn.Module, optimizer: Optimizer | None = None) -> None:
    """Load a checkpoint into ``model`` and, for resuming, into ``optimizer``.

    Raises:
        StoriesError: a file is missing, damaged (its SHA-256 differs) or made for another model.
    """
    sums = checkpoint.state.get("sha256", {})
    for name in ("model.safetensors", "optimizer.safetensors"):
        file = checkpoint.path / name
        if not file.is_file() or _sha256(file) != sums.get(name):
            raise StoriesError(f"{file} is missing or damaged: its SHA-256 is not that of state.json.")
    try:
        model.load_weights(str(checkpoint.path / "model.safetensors"), strict=True)
        if optimizer is not None:
            _restore_optimizer(optimizer, model, mx.load(str(checkpoint.path / "optimizer.safetensors")))
    except (RuntimeError, ValueError) as error:
        raise StoriesError(f"checkpoint {checkpoint.path} does not fit this run: {error}") from error
    mx.eval(model.parameters())


def _restore_optimizer(optimizer: Optimizer, model: nn.Module, arrays: dict[str, mx.array]) -> None:
    optimizer.init(model.trainable_parameters())
    wanted = {name for name, _ in tree_flatten(optimizer.state)}
    if wanted != arrays.keys():
        raise ValueError(f"optimiser state differs in {', '.join(sorted(wanted ^ arrays.keys()))}")
    optimizer.state = tree_unflatten(list(arrays.items()))


def load_model(run: Run, which: str = "best") -> tuple[Transformer, Tokenizer, dict[str, Any]]:
    """A trained model in evaluation mode, its tokenizer and the run's configuration."""
    config = run.config
    model = Transformer(from_dict(ModelConfig, config.get("model"), f"{run.path}/config.json, model"))
    restore(run.checkpoint(which), model)
    model.eval()
    return model, run.tokenizer(), config


def _save_arrays(path: Path, tree: Any) -> None:
    try:
        mx.save_safetensors(str(path), dict(tree_flatten(tree)), metadata={"format": "mlx"})
    except RuntimeError as error:  # how MLX reports a failed write
        raise OSError(str(error)) from error
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
