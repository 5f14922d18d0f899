"""The gradients that reach the optimiser, and whether a clip has cut them."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map

from mlxstories.ladder.bench.arrays import norm
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.samples import probe_batch
from mlxstories.ladder.bench.step.received_gradient import own_and_received, variation
from mlxstories.ladder.bench.training.rates import attempt, rate_sweep
from mlxstories.trees import by_path

_ALIKE = 0.2  # mean square of the singular values over the largest square
_TIMES = 4.0  # as large as in the loss's gradient
_LARGEST, _MATRICES = 1_000_000, 8  # entries of a matrix, and number of matrices that are decomposed


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
        gradient, received = own_and_received(bench, probe_batch(bench, call))
        if not received:
            return None
        own.append(norm(gradient))
        seen.append(norm(received))
        largest.append(max(float(mx.abs(g).max()) for g in received.values() if g.size))
    if variation(own) <= 1e-3 or min(seen) <= 0 or not np.isfinite(seen).all():
        return None
    share = float(np.median(np.array(seen) / np.maximum(own, 1e-30)))
    if variation(seen) < 2e-4:
        return Clip("norm", float(np.mean(seen)), share)
    if variation(largest) < 1e-4 and share < 1:
        return Clip("value", float(np.mean(largest)), share)
    return None


@measurement
def unclipped_run(bench: Bench) -> tuple[float, float]:
    """Loss and accuracy on the minimal batch with gradients let through at a norm of 1."""
    return attempt(bench, rate_sweep(bench).steps, receive=_of_unit_norm)


def _of_unit_norm(gradients):
    squares = sum(g.astype(mx.float32).square().sum() for g in by_path(gradients).values())
    scale = mx.rsqrt(mx.maximum(squares, 1e-30))
    return tree_map(lambda g: (g * scale).astype(g.dtype), gradients)


@measurement
def orthogonal_size(bench: Bench) -> float | None:
    """Root mean square of the singular values of matrices that arrive orthogonalised, as Muon's do: about 1 unless
    they were scaled since. The median over matrices whose singular values are alike while those of the loss's gradient
    are not; None without any."""
    own, received = own_and_received(bench, probe_batch(bench, 0))
    matrices = [n for n, a in received.items() if a.ndim == 2 and a.size <= _LARGEST and n in own]
    matrices = [n for n in matrices if min(own[n].shape) > 1]
    sizes = []
    for name in matrices[:: max(1, len(matrices) // _MATRICES)]:
        made, given = (_singular_squares(arrays[name]) for arrays in (received, own))
        if made.max() > 0 and given.max() > 0:
            alike, before = (squares.mean() / squares.max() for squares in (made, given))
            sizes += [float(np.sqrt(made.mean()))] if alike > max(_ALIKE, _TIMES * before) else []
    return float(np.median(sizes)) if sizes else None


def _singular_squares(matrix: mx.array) -> np.ndarray:
    values = np.array(matrix.astype(mx.float32))
    return np.linalg.svd(values, compute_uv=False) ** 2 if np.isfinite(values).all() else np.zeros(1)


@measurement
def full_size_run(bench: Bench) -> tuple[float, float]:
    """Loss and accuracy on the minimal batch with orthogonalised gradients scaled back to singular values of 1."""
    scale = 1 / orthogonal_size(bench)
    return attempt(
        bench,
        rate_sweep(bench).steps,
        receive=lambda gradients: tree_map(lambda g: (scale * g).astype(g.dtype), gradients),
    )
