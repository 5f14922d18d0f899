"""Short trainings on the bench with the subject's own step, and what they reach."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import mlx.nn as nn
import numpy as np
from mlx.optimizers import Optimizer

from mlxstories.ladder.bench.arrays import between, full_precision, put
from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.scoring import scored
from mlxstories.ladder.bench.step.adam import overstep, uncorrected_betas, uncorrected_warmup, watched
from mlxstories.ladder.bench.step.optimizers import held_at, parts, read_rate, read_schedule
from mlxstories.ladder.bench.step.plan import plan
from mlxstories.trees import by_path

_SAME = 1e-3  # factors this close to 1 leave the user's update untouched
_CLIMB = 0.25  # of a trial that its warmup takes at most; a longer one is a matter of its own


@dataclass
class Trial:
    """A training on the bench.

    Attributes:
        losses: what the step returned, before each update.
        rates: the optimiser's learning rate at each update, where it can be read.
        points: (updates done, loss, accuracy), measured by us in evaluation mode.
    """

    model: nn.Module
    optimizer: Optimizer
    losses: list[float] = field(default_factory=list)
    rates: list[float | None] = field(default_factory=list)
    points: list[tuple[int, float, float]] = field(default_factory=list)

    @property
    def finite(self) -> bool:
        return bool(np.isfinite([*self.losses, *(loss for _, loss, _ in self.points)]).all())

    @property
    def end(self) -> float:
        """The last loss measured, in nats; infinite where the trial broke down."""
        return self.points[-1][1] if self.points and self.finite else float("inf")


def train(
    bench: Bench,
    batches: Sequence[HostBatch],
    steps: int,
    *,
    scale: float = 1.0,
    measure: HostBatch | None = None,
    at: Sequence[int] = (),
    model: nn.Module | None = None,
    ramp: int = 0,
    corrected: bool = False,
    plain: bool = False,
    transform: Callable[[dict, dict, int], dict] | None = None,
    receive: Callable[[Any], Any] | None = None,
    patience: bool = True,
) -> Trial:
    """Train with the subject's own step, its warmup shortened as the whole run is, then at the peak of its
    learning-rate schedule, times ``scale``; black box: parameters move by ``scale`` times what the step moved them.

    Args:
        measure: rows that are evaluated after the numbers of updates in ``at``.
        ramp: steps over which the update grows to its full size, if its own warmup takes no more.
        corrected: give Adam's updates the bias correction that they lack.
        plain: leave every update as the subject makes it, its own warmup and all.
        transform: (before, after, step) -> parameters that replace those after the step.
        receive: takes the gradients that reach the optimiser and returns those that it gets instead.
        patience: end when a loss is not finite.
    """
    model = model or bench.model()
    optimizer = bench.optimizer()
    model.train()
    trial = Trial(model, optimizer)
    bench.seed_all(bench.seed + 1)
    pace = _pace(bench, steps, ramp, corrected)
    # In 16 bits the small updates of a warmup are rounded away, and nothing is left to be scaled.
    held = (
        nullcontext()
        if plain or full_precision(model.trainable_parameters())
        else held_at(optimizer, peaks(bench))
    )
    with watched(optimizer, receive) as of_adam, held:
        for step in range(steps):
            before = by_path(model.parameters())
            trial.losses.append(bench.step(model, optimizer, batches[step % len(batches)]))
            trial.rates.append(read_rate(optimizer))
            others, adam = (1.0, 1.0) if plain else pace(step)
            wanted = 1.0 if plain else scale * _to_the_peak(bench, trial.rates[-1])
            # Where no gradient was seen on its way to Adam, all updates are taken for its own.
            mine = of_adam & set(before) or set(before)
            factor = {name: wanted * (adam if name in mine else others) for name in before}
            if transform is not None or any(abs(f - 1) >= _SAME for f in factor.values()):
                after = by_path(model.parameters())
                moved = transform(before, after, step) if transform else after
                put(model, {name: between(before[name], moved[name], factor[name]) for name in moved})
            if step + 1 in at and measure is not None:
                trial.points.append((step + 1, *score(bench, model, measure)))
            if patience and not np.isfinite(trial.losses[-1]):
                break
    return trial


@measurement
def peaks(bench: Bench) -> list[float]:
    """The peak rate of each part of the subject's optimiser."""
    return [read_schedule(part).peak for part in parts(bench.optimizer())]


def _to_the_peak(bench: Bench, rate: float | None) -> float:
    schedule = bench.schedule
    return schedule.peak / rate if schedule.scheduled and schedule.peak and rate else 1.0


def _pace(bench: Bench, steps: int, ramp: int, corrected: bool) -> Callable[[int], tuple[float, float]]:
    """The fraction of its full size that each update of a trial has, as in the subject's own run: for most updates, and
    for those of an Adam without bias correction."""
    found, betas, warmup = plan(bench), uncorrected_betas(bench), uncorrected_warmup(bench)
    climb = max(ramp, round(min(found.share, _CLIMB) * steps))

    def pace(step: int) -> tuple[float, float]:
        part = min(1.0, (step + 1) / climb) if climb else 1.0
        if betas is None or not (corrected or warmup):
            return part, part
        # By the time that a warmup has come as far, Adam's moments have filled.
        due = max(step + 1, warmup * (step + 1) / climb) if climb else step + 1
        wanted = 1.0 if corrected else overstep(*betas, due)
        return part, float(part * wanted / overstep(*betas, step + 1))

    return pace


def score(bench: Bench, model: nn.Module, batch: HostBatch) -> tuple[float, float]:
    """Loss in nats per real token and accuracy, in evaluation mode."""
    found = scored(bench, model, batch)
    return found.loss, found.accuracy
