"""Adam and its kin: which part of an optimiser is one, and what its missing bias correction does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
from mlx.optimizers import Adam, Adamax, Optimizer

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.step.optimizers import RateCurve, intercepted, parts, read_schedule
from mlxstories.ladder.bench.step.plan import plan
from mlxstories.trees import by_path

_FEWEST, _MOST = 1000, 100_000  # updates that are looked at


def adams(optimizer: Optimizer) -> list[Optimizer]:
    """The parts of an optimiser that are Adam or of its kind."""
    return [o for o in parts(optimizer) if isinstance(o, Adam) or "adam" in type(o).__name__.lower()]


def uncorrected(optimizer: Optimizer) -> Optimizer | None:
    """The first Adam that runs without bias correction, with betas that can be read. Not Adamax, whose denominator is a
    maximum and has no bias: its first updates are small."""
    return next(
        (
            o
            for o in adams(optimizer)
            if not getattr(o, "bias_correction", True)
            and len(getattr(o, "betas", ())) == 2
            and "adamax" not in type(o).__name__.lower()
            and not isinstance(o, Adamax)
        ),
        None,
    )


@contextmanager
def watched(optimizer: Optimizer, receive: Callable[[Any], Any] | None) -> Iterator[set[str]]:
    """As `intercepted`; yields the set in which the names of parameters are collected whose gradients reach the first
    Adam without bias correction. Others may be updated by another part, or not by this optimiser."""
    plain, names = uncorrected(optimizer), set[str]()

    def noted(gradients: Any) -> Any:
        names.update(by_path(gradients))
        return gradients

    whole = plain is optimizer
    through = (lambda g: receive(noted(g)) if receive else noted(g)) if whole else receive
    inner = nullcontext() if plain is None or whole else intercepted(plain, noted)
    with intercepted(optimizer, through), inner:
        yield names


@measurement
def uncorrected_betas(bench: Bench) -> tuple[float, float] | None:
    """Both betas of an Adam without bias correction, or None."""
    plain = uncorrected(bench.optimizer())
    if plain is None:
        return None
    b1, b2 = (float(beta) for beta in plain.betas)
    return b1, b2


@measurement
def uncorrected_schedule(bench: Bench) -> RateCurve | None:
    """The learning rate of the Adam without bias correction, which may be one of several parts."""
    optimizer = bench.optimizer()
    plain = uncorrected(optimizer)
    if plain is None:
        return None
    return bench.schedule if plain is parts(optimizer)[0] else read_schedule(plain)


def uncorrected_warmup(bench: Bench) -> int:
    """Updates in which the rate of the Adam without bias correction climbs; 0 without one."""
    schedule = uncorrected_schedule(bench)
    return schedule.peak_step if schedule is not None and schedule.scheduled else 0


def overstep(b1: float, b2: float, update: float | np.ndarray) -> float | np.ndarray:
    """The size of an uncorrected Adam's update in learning rates; ``update`` is its number, from 1 on."""
    return (1 - b1**update) / np.sqrt(1 - b2**update)


@measurement
def oversteps(bench: Bench) -> np.ndarray | None:
    """The sizes of an uncorrected Adam's updates over the subject's own run, in peaks of its schedule; None where no
    Adam is uncorrected."""
    betas = uncorrected_betas(bench)
    if betas is None:
        return None
    schedule = uncorrected_schedule(bench)
    updates = np.arange(1, min(max(plan(bench).updates, _FEWEST), _MOST) + 1)
    factors = overstep(*betas, updates)
    if schedule is None or not schedule.scheduled or schedule.peak <= 0:
        return factors
    return factors * schedule.at(updates - 1) / schedule.peak
