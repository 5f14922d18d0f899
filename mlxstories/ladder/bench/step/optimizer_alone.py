"""What the optimiser alone does: with one gradient again and again, and with its count of updates."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
from mlx.optimizers import Optimizer

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.samples import probe_batch
from mlxstories.ladder.bench.step.optimizers import applied, intercepted, parts
from mlxstories.ladder.bench.subject_fault import SubjectFault
from mlxstories.trees import by_path

_STEPS = 24  # that a momentum of 0.9 needs to reach nine tenths of its strength
_CALLS = 3


@measurement
def descent_cosines(bench: Bench) -> list[float]:
    """Cosine of each update with the descent of one gradient that a fresh optimiser is given again and again, always
    for the same weights; none where it moves nothing or takes no plain gradient."""
    model, optimizer = bench.model(), bench.optimizer()
    gradient = bench.gradients(model, probe_batch(bench, 0))
    weights = {n: a for n, a in by_path(model.trainable_parameters()).items() if n in gradient}
    cosines = []
    try:
        for _ in range(_STEPS):
            after = applied(optimizer, gradient, weights)
            moved = {n: a - weights[n] for n, a in after.items()}
            if (length := _dot(moved, moved) * _dot(gradient, gradient)) > 0:
                cosines.append(-_dot(moved, gradient) / length**0.5)
    except Exception:  # an optimiser that wants more than gradients
        return []
    return cosines


def _dot(one: dict[str, mx.array], other: dict[str, mx.array]) -> float:
    return float(sum((a.astype(mx.float32) * other[n].astype(mx.float32)).sum() for n, a in one.items()))


@measurement
def steps_per_update(bench: Bench) -> float | None:
    """By how much the optimiser's count of steps, which its schedules go by, rises at an update. None where a call
    of the step does not show its updates, as when it is compiled."""
    model, optimizer, updates = bench.model(), bench.optimizer(), 0
    first = _count(optimizer)
    for call in range(_CALLS):
        seen: list[int] = []
        with intercepted(optimizer, _noting(seen)):
            try:
                bench.step(model, optimizer, probe_batch(bench, call))
            except SubjectFault:
                return None
        if not seen:
            return None
        updates += len(seen)
    last = _count(optimizer)
    return (last - first) / updates if first is not None and last is not None else None


def _noting(seen: list[int]) -> Callable:
    return lambda gradients: seen.append(1) or gradients


def _count(optimizer: Optimizer) -> int | None:
    try:
        return int(parts(optimizer)[0].step)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
