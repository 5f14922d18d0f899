"""The run that the subject has: its updates, and how long its schedule climbs in them."""

from __future__ import annotations

from dataclasses import dataclass

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.material import epoch_steps
from mlxstories.ladder.bench.step.optimizers import scheduled_rate

_EPOCHS, _STEPS = 20, 1000  # of a usual run


@dataclass(frozen=True)
class Plan:
    """A run and its schedule.

    Attributes:
        updates: of the optimiser, over the whole run.
        stated: whether the subject says so; else it is a usual run's.
        warmup: the first update within 1 % of the peak rate; 0 for a constant rate.
    """

    updates: int
    stated: bool
    warmup: int

    @property
    def share(self) -> float:
        """The part of the run in which the rate climbs; above 1 where the peak is never reached."""
        return self.warmup / self.updates


@measurement
def plan(bench: Bench) -> Plan:
    """The subject's run: as long as it says, else as its schedule, else 20 epochs, and 1000 updates at least."""
    schedule, stated = bench.schedule, bench.subject.updates
    warmup = schedule.peak_step if schedule.scheduled else 0
    updates = stated or schedule.end or max(_EPOCHS * (epoch_steps(bench) or 0), _STEPS)
    return Plan(updates, stated is not None, warmup)


@measurement
def below_nought(bench: Bench) -> int | None:
    """The first update, counted from 0, whose learning rate is negative, of those of the run where the subject states
    them, and else of an epoch; None where none is."""
    schedule, updates = bench.schedule, bench.subject.updates or epoch_steps(bench)
    rate = scheduled_rate(bench.optimizer())
    if rate is None or not updates:
        return None
    known = [
        step for step, rate in zip(schedule.steps, schedule.rates, strict=True) if rate < 0 and step < updates
    ]
    if not known and not rate(updates - 1) < 0:
        return None
    least, most = 0, min(known, default=updates - 1)
    while least < most:  # it falls through 0 between a step that was asked and the one before
        middle = (least + most) // 2
        least, most = (least, middle) if rate(middle) < 0 else (middle + 1, most)
    return most
