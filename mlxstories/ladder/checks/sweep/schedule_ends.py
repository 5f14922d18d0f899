"""Whether the learning-rate schedule and the run end together."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.epochs import epoch_steps
from mlxstories.ladder.bench.step.plan import PartRate, part_rates, plan
from mlxstories.ladder.bench.step.steps import watched_steps
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import ANY, check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, warning, worst


@check(
    "the schedule lasts",
    rung="sweep",
    causes=("schedule-out-of-step",),
    unless=ANY,
    half=Limit(0.5, "of a stated run"),
    most=Limit(0.9, "of a stated run"),
    beyond=Limit(1.5, "stated runs"),
    high=Limit(0.5, "of the peak, when a stated run ends"),
    early=Limit(0.5, "of an epoch"),
    epoch=Limit(1.0, "epochs"),
    calls=Limit(1, "calls an update"),
    whole=Limit(0.02, "from a whole number of epochs, or of runs"),
)
def lasts(bench: Bench, limits: Gauges) -> Verdict:
    """Compares the update at which the schedule has ended, at 1 % of its peak or less, with the updates of the run
    where the subject states them, and else with the batches of an epoch; and with the calls of the step that an update
    takes.

    After its end training changes nothing. A schedule that counts calls of a step that collects several before it
    updates is at a fraction of its way when training ends.

    Example: a line over 40 steps, left from a trial, in a run of epochs of 125; `cosine_decay(rate, epochs * batches)`
    with an optimiser that is called at every fourth batch.

    Fix: count optimiser updates: batches of all epochs over the batches that an update collects.
    """
    return worst(_lasts(bench, part, limits) for part in part_rates(bench))


def _lasts(bench: Bench, part: PartRate, limits: Gauges) -> Verdict:
    schedule, run, epoch = part.curve, plan(bench), epoch_steps(bench)
    if not schedule.scheduled or schedule.peak <= 0 or schedule.settled is None:
        return passed("it does not end")
    if run.stated:
        return _beside_the_run(bench, part, run.updates, limits)
    return (
        _beside_an_epoch(bench, part, epoch, limits) if epoch else passed("epochs were not read to the end")
    )


def _calls(bench: Bench) -> int:
    """Calls of the step that an update takes."""
    watched = watched_steps(bench)
    return round(watched.calls / watched.updates) if watched.updates else 1


def _beside_the_run(bench: Bench, part: PartRate, updates: int, limits: Gauges) -> Verdict:
    schedule, calls = part.curve, _calls(bench)
    end, settled = schedule.end, schedule.settled
    detail = f"{settled} of {updates} updates"
    if end is not None and limits.most.below(end / updates):
        bad = limits.half.below(end / updates)
        draft = _spent(
            error if bad else warning,
            part,
            end,
            f"{1 - end / updates:.0%} of the {updates} updates of the run change next to nothing",
            f"let the schedule last for all {updates} updates",
            updates=updates,
        )
        return failed(detail, draft) if bad else passed(detail, draft)
    if limits.calls.above(calls) and limits.whole.below(abs(settled / updates / calls - 1)):
        return passed(detail, _in_calls(part, settled, f"{calls} times the {updates} of the run", calls))
    if limits.beyond.above(settled / updates) and limits.high.above(schedule.at(updates) / schedule.peak):
        return passed(detail, _unfinished(part, settled, updates))
    return passed(detail)


def _beside_an_epoch(bench: Bench, part: PartRate, epoch: int, limits: Gauges) -> Verdict:
    end, settled, calls = part.curve.end, part.curve.settled, _calls(bench)
    detail = f"{settled * calls / epoch:.2g} epochs"
    if end is not None and limits.epoch.below(end * calls / epoch):
        bad = limits.early.below(end * calls / epoch)
        draft = _spent(
            error if bad else warning,
            part,
            end,
            f"training after {end * calls / epoch:.0%} of the first epoch of {epoch} batches changes next to nothing",
            "let the schedule last for the updates of the whole run: epochs times batches",
            epoch=epoch,
        )
        return failed(detail, draft) if bad else passed(detail, draft)
    epochs = round(settled / epoch)
    if limits.calls.above(calls) and limits.whole.below(abs(settled / epoch - epochs)):
        return passed(detail, _in_calls(part, settled, f"as many as {epochs} epochs have batches", calls))
    return passed(detail)


def _spent(severity, part: PartRate, end: int, what: str, fix: str, **evidence) -> Draft:
    return severity(
        "schedule-out-of-step",
        f"the learning rate{part.of} is 1 % of its peak or less from update {end} on: {what}",
        fix=fix,
        where="optimizer",
        end=end,
        **evidence,
    )


def _in_calls(part: PartRate, end: int, as_many: str, calls: int) -> Draft:
    return warning(
        "schedule-out-of-step",
        f"the schedule{part.of} ends after {end} updates, {as_many}, but the step updates at every {calls}th call "
        f"alone: training reaches 1/{calls} of it",
        fix="count updates, not batches, in the schedule",
        where="optimizer",
        end=end,
        calls=calls,
    )


def _unfinished(part: PartRate, end: int, updates: int) -> Draft:
    return warning(
        "schedule-out-of-step",
        f"the schedule{part.of} ends after {end} updates, and the run after {updates}: the learning rate hardly "
        "comes down",
        fix=f"let the schedule last for {updates} updates, or state another number of updates",
        where="optimizer",
        end=end,
        updates=updates,
    )
