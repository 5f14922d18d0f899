"""The gradients that reach the optimiser, and whether a clip has cut them."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map

from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.material import probe_batch
from mlxstories.ladder.bench.rates import attempt, rate_sweep
from mlxstories.ladder.bench.received import loss_gradient, watched_step


@dataclass(frozen=True)
class Clip:
    """Gradients reach the optimiser with a constant norm, or a constant largest entry.

    Attributes:
        kind: ``norm`` or ``value``.
        limit: that constant.
        share: what is left of the gradient's norm, median over batches.
    """

    kind: str
    limit: float
    share: float


@measurement
def clipping(bench: Bench) -> Clip | None:
    """Find a clip that binds on every one of several batches, from the gradients that reach the optimiser."""
    own, seen, largest = [], [], []
    for call in range(3):
        gradient, received = _gradients(bench, probe_batch(bench, call))
        if not received:
            return None
        own.append(_norm(gradient))
        seen.append(_norm(received))
        largest.append(max(float(mx.abs(g).max()) for g in received.values()))
    if _spread(own) <= 1e-3 or min(seen) <= 0 or not np.isfinite(seen).all():
        return None
    share = float(np.median(np.array(seen) / np.maximum(own, 1e-30)))
    if _spread(seen) < 2e-4:
        return Clip("norm", float(np.mean(seen)), share)
    if _spread(largest) < 1e-4 and share < 1:
        return Clip("value", float(np.mean(largest)), share)
    return None


def _spread(values: list[float]) -> float:
    return float(np.std(values) / max(float(np.mean(values)), 1e-30))


def _gradients(bench: Bench, batch: HostBatch) -> tuple[dict[str, mx.array], dict[str, mx.array]]:
    """The gradient of the subject's loss, and what reached the optimiser in a step on the same batch."""
    model, optimizer = bench.model(), bench.optimizer()
    model.train()
    own = loss_gradient(bench, model, batch)[1]
    return own, watched_step(bench, model, optimizer, batch)[1]


def _norm(arrays: dict[str, mx.array]) -> float:
    return float(mx.sqrt(sum(a.astype(mx.float32).square().sum() for a in arrays.values())))


@measurement
def unclipped_run(bench: Bench) -> tuple[float, float]:
    """Loss and accuracy on the minimal batch with gradients let through at a norm of 1."""
    return attempt(bench, rate_sweep(bench).steps, receive=_of_unit_norm)


def _of_unit_norm(gradients):
    squares = sum(g.astype(mx.float32).square().sum() for _, g in tree_flatten(gradients))
    scale = mx.rsqrt(mx.maximum(squares, 1e-30))
    return tree_map(lambda g: (g * scale).astype(g.dtype), gradients)
