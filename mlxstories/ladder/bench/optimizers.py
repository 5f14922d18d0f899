"""What can be read from a user's optimiser, and from what reaches it, without knowing its class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.optimizers import Optimizer


def parts(optimizer: Optimizer) -> list[Optimizer]:
    """The optimisers inside a `MultiOptimizer`, or the optimiser itself."""
    return list(getattr(optimizer, "optimizers", None) or [optimizer])


@contextmanager
def intercepted(optimizer: Optimizer, receive: Callable[[Any], Any] | None) -> Iterator[None]:
    """Pass every tree of gradients through ``receive`` on its way into the optimiser."""
    if receive is None:
        yield
        return
    apply = optimizer.apply_gradients
    optimizer.apply_gradients = lambda gradients, parameters: apply(receive(gradients), parameters)
    try:
        yield
    finally:
        del optimizer.apply_gradients


@dataclass(frozen=True)
class RateCurve:
    """An optimiser's learning rate over its updates, as far as it can be read from outside."""

    scheduled: bool
    steps: tuple[int, ...]
    rates: tuple[float, ...]

    @property
    def peak(self) -> float:
        return max(self.rates, default=0.0)

    @property
    def peak_step(self) -> int:
        """The first update at which the rate is within 1 % of its peak."""
        return next((s for s, r in zip(self.steps, self.rates, strict=True) if r >= 0.99 * self.peak), 0)


def read_schedule(optimizer: Optimizer) -> RateCurve:
    """Ask an optimiser's schedule for its rate at steps up to 100 000."""
    optimizer = parts(optimizer)[0]
    scheduler = optimizer._schedulers.get("learning_rate")
    if scheduler is None:
        rate = read_rate(optimizer)
        return RateCurve(False, (), ()) if rate is None else RateCurve(False, (0,), (rate,))
    steps = sorted({round(1.06**k) - 1 for k in range(200)} | set(range(50)))
    rates = [float(scheduler(mx.array(step, mx.uint64))) for step in steps]
    return RateCurve(True, tuple(steps), tuple(rate if np.isfinite(rate) else 0.0 for rate in rates))


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
