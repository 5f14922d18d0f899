"""The run that the subject plans: how many updates, and how many of them its schedule spends climbing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mlx.optimizers import Optimizer

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.epochs import epoch_steps
from mlxstories.ladder.bench.step.optimizers import RateCurve, parts, read_schedule, scheduled_rate

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


@dataclass(frozen=True)
class PartRate:
    """The learning rate of an optimiser, or of one of its parts.

    Attributes:
        of: words for the part, to follow "the learning rate"; empty where the rates of all parts go alike.
        curve: the rate over the updates.
        scheduled: the rate of an update, counted from 0; None without a schedule.
    """

    of: str
    curve: RateCurve
    scheduled: Callable[[int], float] | None


@measurement
def part_rates(bench: Bench) -> list[PartRate]:
    """The rates of an optimiser's `parts`; of several that go alike only the first."""
    found: list[tuple[str, Optimizer, RateCurve]] = []
    for number, part in enumerate(parts(bench.optimizer()), 1):
        curve = bench.schedule if number == 1 else read_schedule(part)
        if not any(curve.goes_like(other) for *_, other in found):
            found.append((f" of part {number} ({type(part).__name__})", part, curve))
    several = len(found) > 1
    return [PartRate(of if several else "", curve, scheduled_rate(part)) for of, part, curve in found]


@measurement
def plan(bench: Bench) -> Plan:
    """The subject's run, by the rate of its optimiser's first part: see `planned`."""
    return planned(bench, bench.schedule)


def planned(bench: Bench, schedule: RateCurve) -> Plan:
    """The subject's run: as long as it says, else as a schedule, else 20 epochs, and 1000 updates at least."""
    stated = bench.subject.updates
    warmup = schedule.peak_step if schedule.scheduled else 0
    updates = stated or schedule.end or max(_EPOCHS * (epoch_steps(bench) or 0), _STEPS)
    return Plan(updates, stated is not None, warmup)


def first_negative(bench: Bench, part: PartRate) -> int | None:
    """The first update, counted from 0, whose learning rate is negative, within the run if the subject states its
    length, else within an epoch; None where there is none."""
    schedule, rate = part.curve, part.scheduled
    updates = bench.subject.updates or epoch_steps(bench)
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
