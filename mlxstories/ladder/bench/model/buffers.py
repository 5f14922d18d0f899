"""Masks and whole-number tables that MLX counts among the trainable parameters, and what training does to them."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.ladder.bench.arrays import is_pattern, put
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.model.dependence import dependence
from mlxstories.ladder.bench.samples import minimal_batch, sample
from mlxstories.trees import by_path

_STEPS = 3  # a warmup may start at 0


@dataclass(frozen=True)
class Buffers:
    """Trainable arrays that are no weights.

    Attributes:
        moved: path of each that a few training steps changed, and how: its type, or by how much.
        future: largest change of a logit by later tokens after these steps; see `Dependence`.
        effect: change of the logits when the buffers are put back, in units of their spread.
        whole: whether one of those that moved was of bool or integers.
        full_precision: whether no weight is of 16 bits.
    """

    moved: dict[str, str]
    future: float
    effect: float
    whole: bool
    full_precision: bool


@measurement
def buffers(bench: Bench) -> Buffers | None:
    """Train for a few steps and look at masks and tables afterwards; None where only weights are trainable."""
    model = bench.model()
    before = {n: a for n, a in by_path(model.trainable_parameters()).items() if _is_buffer(a)}
    if not before:
        return None
    model.train()
    optimizer, batch = bench.optimizer(), minimal_batch(bench)
    for _ in range(_STEPS):
        bench.step(model, optimizer, batch)
    after = by_path(model.parameters())
    moved = {n: how for n, a in before.items() if (how := _difference(a, after[n]))}
    if not moved:
        return Buffers({}, 0.0, 0.0, False, True)
    view = dependence(bench, model, seed=6)
    whole = any(not mx.issubdtype(before[n].dtype, mx.floating) for n in moved)
    effect = _effect(bench, model, {n: before[n] for n in moved})
    return Buffers(moved, view.future, effect, whole, view.full_precision)


def _is_buffer(array: mx.array) -> bool:
    """Whether an array is of whole numbers, or one value on and below the diagonal and another above it."""
    if array.size == 0:
        return False
    return not mx.issubdtype(array.dtype, mx.inexact) or (is_pattern(array) and _is_causal(array))


def _is_causal(array: mx.array) -> bool:
    rows, columns = array.shape[-2:]
    values = np.array(array.astype(mx.float32)).reshape(-1, rows, columns)
    above = np.triu(np.ones((rows, columns), bool), 1)
    sides = (np.unique(values[:, above]), np.unique(values[:, ~above]))
    return rows == columns and all(len(side) == 1 for side in sides)


def _difference(before: mx.array, after: mx.array) -> str:
    if before.dtype != after.dtype:
        return f"from {before.dtype} to {after.dtype}".replace("mlx.core.", "")
    finite = mx.isfinite(before)
    moved = mx.abs(after.astype(mx.float32) - before.astype(mx.float32))
    most = float(mx.where(finite, moved, 0).max())
    return f"by up to {most:.1e}" if most > 0 else ""


def _effect(bench: Bench, model: nn.Module, originals: dict[str, mx.array]) -> float:
    """How much the logits differ with the buffers put back."""
    row = np.maximum(sample(bench).inputs[:1], 0)
    model.eval()
    changed = np.array(bench.logits(model, row))
    put(model, originals)
    plain = np.array(bench.logits(model, row))
    return float(np.abs(changed - plain).max()) / (float(plain.std()) or 1.0)
