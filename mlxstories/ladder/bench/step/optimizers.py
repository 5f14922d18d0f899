"""What can be read from a user's optimiser, and from what reaches it, without knowing its class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.optimizers import Optimizer
from mlx.utils import tree_unflatten

from mlxstories.ladder.bench.arrays import Arrays
from mlxstories.ladder.patches import Patches
from mlxstories.ladder.time_limit import TimeLimitError
from mlxstories.trees import by_path

_OVER = 0.01  # of the peak: the schedule has ended
_SAME = 1e-3  # of the peak
_SETTLED = 1e-6  # of the peak: the rate does not change any more


def parts(optimizer: Optimizer) -> list[Optimizer]:
    """The optimisers inside a `MultiOptimizer`, and in those inside of it, or the optimiser itself."""
    inner = getattr(optimizer, "optimizers", None)
    return [part for one in inner for part in parts(one)] if inner else [optimizer]


@contextmanager
def intercepted(optimizer: Optimizer, receive: Callable[[Any], Any] | None) -> Iterator[None]:
    """Pass every tree of gradients through ``receive`` on its way into the optimiser."""
    if receive is None:
        yield
        return
    apply = optimizer.apply_gradients

    def received(gradients: Any, *args: Any, **kwargs: Any) -> Any:
        return apply(receive(gradients), *args, **kwargs)

    with Patches() as patches:
        patches.replace(optimizer, "apply_gradients", received)
        yield


@dataclass(frozen=True)
class Leap:
    """The largest change of a rate from one update to the next, while it climbs from the start or where that ends.

    Attributes:
        update: the one before it, counted from 0.
        before, after: the rates.
        times: the larger rate over the smaller, divided by the same ratio at the update before.
    """

    update: int
    before: float
    after: float
    times: float


@dataclass(frozen=True)
class RateCurve:
    """An optimiser's learning rate over its updates, as far as it can be read from outside."""

    scheduled: bool
    steps: tuple[int, ...]
    rates: tuple[float, ...]

    @cached_property
    def peak(self) -> float:
        return max(self.rates, default=0.0)

    @cached_property
    def peak_step(self) -> int:
        """The first update at which the rate is within 1 % of its peak."""
        return next((s for s, r in zip(self.steps, self.rates, strict=True) if r >= 0.99 * self.peak), 0)

    @property
    def end(self) -> int | None:
        """The update from which the rate stays at 1 % of its peak or less; None where it does not."""
        return self._from_on(lambda rate: rate <= _OVER * self.peak)

    @property
    def settled(self) -> int | None:
        """The update from which the rate stays as it is, below its peak; None where it does not."""
        last = self.rates[-1] if self.rates else 0.0
        if last >= self.peak:
            return None
        since = self._from_on(lambda rate: abs(rate - last) <= _SETTLED * self.peak)
        return since if since is not None and since <= self.steps[-1] // 2 else None  # else it still falls

    @property
    def leap(self) -> Leap | None:
        """The largest leap; None where the rate does not climb from its first update on."""
        known = list(zip(self.steps, self.rates, strict=True))
        climbs = next((i for i in range(1, len(known)) if known[i][1] <= known[i - 1][1]), len(known))
        found = []
        for (one, first), (two, before), (three, after) in zip(
            known, known[1:], known[2 : climbs + 1], strict=False
        ):
            if three - one == 2 and first > 0 and after >= 0:
                fall = before / max(after, _OVER * before)  # a fall to 0 has no ratio
                found.append(Leap(two, before, after, max(after / before, fall) * first / before))
        return max(found, key=lambda leap: leap.times, default=None)

    def _from_on(self, low: Callable[[float], bool]) -> int | None:
        since = None
        for step, rate in zip(self.steps, self.rates, strict=True):
            if step <= self.peak_step or not low(rate):
                since = None
            elif since is None:
                since = step
        return since

    def at(self, updates: Any) -> Any:
        """The rate at updates, counted from 0."""
        return np.interp(updates, self.steps, self.rates)

    def goes_like(self, other: RateCurve) -> bool:
        """Whether both rates are at the same fraction of their peaks at every update."""
        if not (self.scheduled or other.scheduled) or not (self.peak and other.peak):
            return self.scheduled == other.scheduled
        steps = sorted({*self.steps, *other.steps})
        return bool(np.allclose(self.at(steps) / self.peak, other.at(steps) / other.peak, atol=_SAME))


@dataclass(frozen=True)
class Unusable:
    """A schedule's value that is not an array: MLX's optimisers cannot multiply by it."""

    name: str
    value: Any
    schedule: Callable


def unusable_schedule(optimizer: Optimizer) -> Unusable | None:
    """The first schedule of an optimiser's `parts` that returned something other than an array."""
    given = (
        Unusable(name, part.state.get(name), schedule)
        for part in parts(optimizer)
        for name, schedule in part._schedulers.items()
    )
    return next((found for found in given if not isinstance(found.value, mx.array)), None)


def scheduled_rate(optimizer: Optimizer) -> Callable[[int], float] | None:
    """The learning-rate schedule of an optimiser's first part: update, counted from 0, to rate. NaN where it fails, as
    a table does beyond its end; None without a schedule. `part_rates` has the rates of all parts."""
    scheduler = parts(optimizer)[0]._schedulers.get("learning_rate")
    if scheduler is None:
        return None

    def rate(step: int) -> float:
        try:
            return float(scheduler(mx.array(step, mx.uint64)))
        except TimeLimitError:
            raise
        except Exception:
            return float("nan")

    return rate


def read_schedule(optimizer: Optimizer) -> RateCurve:
    """Ask an optimiser's schedule for its rate at steps up to 100 000, and just where it peaks and ends."""
    scheduled = scheduled_rate(optimizer)
    if scheduled is None:
        rate = read_rate(parts(optimizer)[0])
        return RateCurve(False, (), ()) if rate is None else RateCurve(False, (0,), (rate,))

    def rate_at(step: int) -> float:
        rate = scheduled(step)
        return rate if np.isfinite(rate) else 0.0

    rates = {step: rate_at(step) for step in {round(1.06**k) - 1 for k in range(200)} | set(range(50))}
    while middles := _beside_the_top(rates):
        rates.update({step: rate_at(step) for step in middles})
    for mark in ("peak_step", "end", "settled"):
        while (middle := _before(getattr(_curve(rates), mark), rates)) is not None:
            rates[middle] = rate_at(middle)
    return _curve(rates)


@contextmanager
def held_at(optimizer: Optimizer, rates: Sequence[float]) -> Iterator[None]:
    """Inside the block, hold the scheduled rate of each of an optimiser's `parts` at one of these."""
    kept = []
    for part, rate in zip(parts(optimizer), rates, strict=False):
        schedule = part._schedulers.pop("learning_rate", None)
        if schedule is not None:
            kept.append((part, schedule))
            part.learning_rate = rate
    try:
        yield
    finally:
        for part, schedule in kept:
            part._schedulers["learning_rate"] = schedule


def _curve(rates: dict[int, float]) -> RateCurve:
    return RateCurve(True, *zip(*sorted(rates.items()), strict=True))


def _beside_the_top(rates: dict[int, float]) -> set[int]:
    """Steps half-way from the largest rate to its neighbours, as long as there are any."""
    top = max(rates, key=lambda step: (rates[step], -step))
    below = max((s for s in rates if s < top), default=top)
    above = min((s for s in rates if s > top), default=top)
    return {(top + s) // 2 for s in (below, above)} - set(rates)


def _before(step: int | None, rates: dict[int, float]) -> int | None:
    """A step half-way to the nearest earlier one that was asked, as long as there is one."""
    earlier = max((s for s in rates if step is not None and s < step), default=None)
    return None if earlier is None or step - earlier < 2 else (earlier + step) // 2


def read_rate(optimizer: Optimizer) -> float | None:
    """The optimiser's current learning rate, or None where it has none."""
    try:
        return float(optimizer.learning_rate)
    except (KeyError, AttributeError, TypeError, ValueError, IndexError):
        return None


def copied(state):
    """An optimiser's state with dicts and lists of its own; arrays are shared, since none is changed in place."""
    if isinstance(state, dict):
        return {key: copied(value) for key, value in state.items()}
    return [copied(v) for v in state] if isinstance(state, list) else state


def put_back(state: dict, kept: dict) -> None:
    """Make ``state`` equal to the copy ``kept``."""
    # In place: a compiled step of the user's may hold this very dict.
    for key in [key for key in state if key not in kept]:
        del state[key]
    for key, value in kept.items():
        if isinstance(value, dict) and isinstance(state.get(key), dict):
            put_back(state[key], value)
        else:
            state[key] = copied(value)


def states(optimizer: Optimizer) -> list[dict]:
    """Copies of the states of an optimiser's `parts`."""
    return [copied(part.state) for part in parts(optimizer)]


def put_states_back(optimizer: Optimizer, kept: list[dict]) -> None:
    """Make the states of an optimiser's `parts` equal to these copies."""
    for part, state in zip(parts(optimizer), kept, strict=True):
        put_back(part.state, state)


def applied(optimizer: Optimizer, gradients: Arrays, weights: Arrays) -> Arrays:
    """What an update makes of weights, all by path."""
    trees = (tree_unflatten(list(arrays.items())) for arrays in (gradients, weights))
    after = by_path(optimizer.apply_gradients(*trees))
    mx.eval(after, optimizer.state)
    return after
