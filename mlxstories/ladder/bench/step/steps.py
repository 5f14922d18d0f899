"""What the subject's own training step does to the parameters, watched over a few calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from mlxstories.ladder.bench.arrays import HALF, Arrays
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.samples import probe_batch
from mlxstories.ladder.bench.step.adam import adams
from mlxstories.ladder.bench.step.optimizers import parts, read_rate
from mlxstories.trees import by_path

_CALLS = 6
_MOST_CALLS = 24  # for steps that update only every so many calls
_UPDATES = 4  # that are worth judging
_GRADIENTS = 4  # calls before which our own gradient is taken


@dataclass(frozen=True)
class Weight:
    """One trainable parameter after the calls."""

    size: int
    float32: bool
    largest: float


@dataclass
class WatchedSteps:
    """A few calls of the step on fresh batches.

    Attributes:
        moved: largest absolute change of each parameter over all calls.
        cosines: of each update with the downhill direction of our own loss.
        decays: share of the weights that each update removed.
        along: cosine of the first update with the weights; 0 without one.
        spreads: coefficient of variation of the update's entries, over matrices.
        slopes: the same of our own gradient's entries, of the first calls.
        ratios: norm of each parameter's updates over its own norm, one entry an update.
        losses: returned by the step.
        rates: the optimiser's learning rate after each call, where it can be read.
        update_rates: the same of those that changed anything.
        updates: calls that changed anything.
        calls: those after which the weights were finite.
        finite: whether that was all of them.
        gradient: largest entry of our own gradient of each parameter.
        weights: the trainable parameters after the calls.
        optimizer_steps: what the optimiser counted, where it is an Adam.
        counted: updates that any optimiser counted; None where it keeps no count.
        stuck: share of the entries of 16 bits with a gradient that no call moved; None without such.
    """

    moved: dict[str, float] = field(default_factory=dict)
    cosines: list[float] = field(default_factory=list)
    decays: list[float] = field(default_factory=list)
    along: float = 0.0
    spreads: list[float] = field(default_factory=list)
    slopes: list[float] = field(default_factory=list)
    ratios: dict[str, list[float]] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    rates: list[float | None] = field(default_factory=list)
    update_rates: list[float | None] = field(default_factory=list)
    updates: int = 0
    calls: int = 0
    finite: bool = True
    gradient: dict[str, float] = field(default_factory=dict)
    weights: dict[str, Weight] = field(default_factory=dict)
    optimizer_steps: int | None = None
    counted: int | None = None
    stuck: float | None = None

    @property
    def movers(self) -> list[str]:
        """Parameters that moved at all."""
        return [name for name, reach in self.moved.items() if reach > 0]


@measurement
def watched_steps(bench: Bench) -> WatchedSteps:
    """Call the step on a few different batches."""
    model, optimizer = bench.model(), bench.optimizer()
    watched = WatchedSteps()
    trainable = list(by_path(model.trainable_parameters()))
    model.train()
    bench.seed_all(bench.seed + 3)
    entries = _Entries(model)
    for call in range(_MOST_CALLS):
        batch = probe_batch(bench, call)
        before = by_path(model.parameters())
        gradient = bench.gradients(model, batch) if call < _GRADIENTS else {}
        watched.losses.append(bench.step(model, optimizer, batch))
        watched.rates.append(read_rate(optimizer))
        _take(watched, before, _change(before, by_path(model.parameters()), trainable), gradient)
        entries.see(by_path(model.parameters()), gradient)
        if not watched.finite or (call + 1 >= _CALLS and watched.updates >= _UPDATES):
            break
    watched.stuck = entries.stuck
    watched.weights = {n: _weight(a) for n, a in by_path(model.trainable_parameters()).items()}
    count = parts(optimizer)[0].state.get("step")
    watched.counted = None if count is None else int(count)
    watched.optimizer_steps = next((int(adam.step) for adam in adams(optimizer)), None)
    return watched


class _Entries:
    """The entries of matrices of 16 bits: which ever had a gradient, and which ever moved."""

    def __init__(self, model: nn.Module):
        flat = tree_flatten(model.trainable_parameters())
        self.first = {n: a for n, a in flat if a.dtype in HALF and a.ndim >= 2}
        self.alive = {n: mx.zeros(a.shape, mx.bool_) for n, a in self.first.items()}
        self.moved = dict(self.alive)

    def see(self, weights: Arrays, gradient: Arrays) -> None:
        for name, array in self.first.items():
            if name in gradient:
                self.alive[name] = self.alive[name] | (gradient[name] != 0)
            self.moved[name] = self.moved[name] | (weights[name] != array)
        mx.eval(self.alive, self.moved)

    @property
    def stuck(self) -> float | None:
        alive = sum(float(a.sum()) for a in self.alive.values())
        still = sum(float((self.alive[n] & ~self.moved[n]).sum()) for n in self.first)
        return still / alive if alive else None


def _weight(array: mx.array) -> Weight:
    largest = float(mx.abs(array).max()) if array.size else 0.0
    return Weight(array.size, array.dtype == mx.float32, largest)


def _change(before: Arrays, after: Arrays, names: Iterable[str]) -> Arrays:
    pairs = {n: (before[n].astype(mx.float32), after[n].astype(mx.float32)) for n in names if n in after}
    # The infinities of a mask that MLX counts among the parameters stay as they are.
    return {n: mx.where(old == new, 0.0, new - old) for n, (old, new) in pairs.items()}


def _take(watched: WatchedSteps, before: Arrays, change: Arrays, gradient: Arrays) -> None:
    """Add what one call did."""
    moved = _largest(change)
    if not all(np.isfinite(list(moved.values()))):
        watched.finite = False
        return
    watched.calls += 1
    _raise(watched.moved, moved)
    if any(moved.values()):
        _take_update(watched, before, change, moved, gradient)
    _raise(watched.gradient, _largest(gradient))


def _take_update(watched: WatchedSteps, before: Arrays, change: Arrays, moved, gradient: Arrays) -> None:
    watched.updates += 1
    watched.update_rates.append(watched.rates[-1])
    matrices = [n for n in change if change[n].ndim >= 2 and change[n].size and moved[n] > 0]
    watched.decays.append(_decay_of(before, change, matrices))
    if watched.updates == 1:  # later updates follow weights that began at 0
        watched.along = _cosine_of(before, change, matrices, -watched.decays[0])
    watched.spreads.append(_spread_of(change, matrices))
    for name, ratio in _ratios(before, change).items():
        watched.ratios.setdefault(name, []).append(ratio)
    if gradient:
        watched.cosines.append(_cosine(change, gradient))
        watched.slopes.append(_spread_of(gradient, [n for n in matrices if n in gradient]))


def _largest(arrays: Arrays) -> dict[str, float]:
    largest = {n: mx.abs(a).max() for n, a in arrays.items() if a.size}
    mx.eval(largest)
    return {n: float(v) for n, v in largest.items()}


def _raise(most: dict[str, float], values: Mapping[str, float]) -> None:
    for name, value in values.items():
        most[name] = max(most.get(name, 0.0), value)


def _decay_of(before: Arrays, change: Arrays, names: list[str]) -> float:
    # Random weights are nearly orthogonal to their gradients, so the shrinking part is the decay.
    olds = {n: mx.where(mx.isfinite(before[n]), before[n].astype(mx.float32), 0.0) for n in names}
    shrink = sum((change[n] * old).sum() for n, old in olds.items()) if names else 0.0
    norm = sum(old.square().sum() for old in olds.values()) if names else 1.0
    return -float(shrink / mx.maximum(mx.array(norm), 1e-12))


def _ratios(before: Arrays, change: Arrays) -> dict[str, float]:
    ratios = {n: mx.linalg.norm(d) / mx.linalg.norm(before[n].astype(mx.float32)) for n, d in change.items()}
    mx.eval(ratios)
    # Parameters that start at 0 have no ratio.
    return {name: float(ratio) for name, ratio in ratios.items() if np.isfinite(float(ratio))}


def _cosine_of(before: Arrays, change: Arrays, names: list[str], share: float) -> float:
    """Cosine of an update with the weights, given the share of the weights that it adds to them."""
    size, length = (
        sum(float(a[n].astype(mx.float32).square().sum()) for n in names) ** 0.5 for a in (before, change)
    )
    return share * size / length if length else 0.0


def _spread_of(change: Arrays, names: list[str]) -> float:
    spreads = []
    for name in names:
        size = mx.abs(change[name])
        alive = size > 0
        count = mx.maximum(alive.sum(), 1)
        mean = size.sum() / count
        variance = (mx.where(alive, size - mean, 0.0).square()).sum() / count
        spreads.append(float(mx.sqrt(variance) / mx.maximum(mean, 1e-30)))
    return float(np.median(spreads)) if spreads else 1.0


def _cosine(change: Arrays, gradient: Arrays) -> float:
    names = [n for n in gradient if n in change]
    dot = sum((change[n] * gradient[n].astype(mx.float32)).sum() for n in names)
    sizes = [sum(x[n].astype(mx.float32).square().sum() for n in names) for x in (change, gradient)]
    return -float(dot / mx.maximum(mx.sqrt(sizes[0]) * mx.sqrt(sizes[1]), 1e-30))
