"""Whether the learning-rate schedule goes by updates."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.step.optimizer_alone import steps_per_update
from mlxstories.ladder.bench.step.plan import PartRate, first_negative, part_rates, plan
from mlxstories.ladder.bench.step.schedule_restarts import EPOCHS, schedule_restarts
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped, warning, worst


@check(
    "the schedule counts updates",
    rung="minimal",
    causes=("schedule-out-of-step",),
    unless=("not-finite", "no-update", "state-not-kept"),
    counted=Limit(1.1, "steps counted an update"),
)
def counts_updates(bench: Bench, limits: Gauges) -> Verdict:
    """Compares the count of steps that the optimiser's schedule goes by with the updates that reach it.

    Where the count rises with each of the parts that an update collects, the rate is at its end when a fraction of the
    training is done.
    Example: `optimizer.state["step"] += 1` in the loop over micro-batches.
    Fix: leave the count to `optimizer.update`, or advance a scheduler of your own once an update.
    """
    if not any(part.curve.scheduled for part in part_rates(bench)):
        return passed("a constant rate")
    each = steps_per_update(bench)
    if each is None:
        return skipped("the updates of a call are not seen, or the optimiser keeps no count")
    detail = f"{each:.2g} an update"
    if not limits.counted.above(each):
        return passed(detail)
    return failed(
        detail,
        error(
            "schedule-out-of-step",
            f"the optimiser's count of steps rises by {each:.2g} at each update: the learning rate's schedule runs "
            f"{each:.2g} times as fast as the training",
            fix="advance the schedule once per update, after all of its micro-batches",
            where="train_step",
            counted=each,
        ),
    )


@check(
    "the rate is never negative",
    rung="minimal",
    causes=("schedule-out-of-step",),
    unless=("not-finite", "no-update", "state-not-kept", "schedule-out-of-step"),
)
def never_negative(bench: Bench, limits: Gauges) -> Verdict:
    """Reads the learning rate over the run that the subject states, or else over the first epoch, for one below 0.

    With a negative rate training climbs the loss. A line or polynomial is below 0 wherever it is followed beyond its
    end.
    Example: `lambda step: peak * (1 - step / total)`, where the total counts texts and the run counts rows.
    Fix: take the maximum of it and 0, and count the updates of the whole run.
    """
    return worst(_never_negative(bench, part) for part in part_rates(bench))


def _never_negative(bench: Bench, part: PartRate) -> Verdict:
    first = first_negative(bench, part)
    if first is None:
        return passed("never below 0")
    over = f"the run's {plan(bench).updates} updates" if plan(bench).stated else "the first epoch"
    return failed(
        f"below 0 from update {first} on",
        error(
            "schedule-out-of-step",
            f"the learning rate{part.of} falls below 0 within {over}, from update {first} on: training then climbs the "
            "loss",
            fix="count the updates of the whole run, and end the schedule with max(rate, 0)",
            where="optimizer",
            update=first,
        ),
    )


@check(
    "the schedule does not begin again",
    rung="minimal",
    causes=("schedule-out-of-step",),
    unless=("not-finite", "no-update", "state-not-kept", "schedule-out-of-step"),
    again=Limit(2, "times in four epochs"),
)
def goes_on(bench: Bench, limits: Gauges) -> Verdict:
    """Reads the learning rate over the first four epochs, and counts how often it falls by half and rises again.

    A warmup that never ends, and a rate that swings within an epoch, are a schedule that counts something else than
    the updates of the run. Restarts may be meant; those that are lie epochs apart, and ever farther.
    Example: `min(step_of_the_epoch / warmup, 1)`; a cosine over 20 epochs, given as 20, that is asked at each update.
    Fix: count updates from the run's start, and give the schedule's length in updates.
    """
    return worst(_goes_on(bench, part, limits) for part in part_rates(bench))


def _goes_on(bench: Bench, part: PartRate, limits: Gauges) -> Verdict:
    found = schedule_restarts(bench, part)
    if found is None:
        return skipped("a constant rate, or epochs were not read to the end")
    detail = f"begins again {found} times in {EPOCHS} epochs"
    if not limits.again.above(found):
        return passed(detail)
    return passed(
        detail,
        warning(
            "schedule-out-of-step",
            f"in the first {EPOCHS} epochs the learning rate{part.of} falls by half and rises again {found} times: its "
            "schedule counts the updates of each epoch, or was given in epochs a length that it counts in updates",
            fix="count updates from the start of the run, and give the length of warmup and decay in updates",
            where="optimizer",
            times=found,
        ),
    )
