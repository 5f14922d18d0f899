"""Whether the learning rate still climbs when training ends, and is counted in updates."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.material import train_epoch
from mlxstories.ladder.bench.memorising import memorising
from mlxstories.ladder.bench.onward import counted
from mlxstories.ladder.bench.optimizers import RateCurve
from mlxstories.ladder.bench.steps import watched_steps
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import ANY, check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, skipped, warning

_EPOCHS, _STEPS = 20, 1000  # of a usual run
_OVER = 0.01  # of the peak: the schedule has ended


@check(
    "warmup",
    rung="sweep",
    causes=("warmup-too-long",),
    unless=ANY,
    share=Limit(0.5, "of the run"),
    steps=Limit(100, "steps"),
)
def warmup(bench: Bench, limits: Gauges) -> Verdict:
    """Reads the learning-rate schedule and asks whether a run of a usual length reaches its peak.

    A run ends where the schedule does, or after 20 epochs, and not before 1000 steps.

    Example: `optim.linear_schedule(0, 1e-3, 100_000)` for a run of 2000 steps.

    Fix: warm up for about 5 % of the run.
    """
    schedule = bench.schedule
    if not schedule.scheduled or schedule.peak <= 0:
        return passed("a constant rate")
    if not memorising(bench).learned:
        return skipped("a few stories were not memorised")
    epoch = _epoch_steps(bench)
    climbs, total = schedule.peak_step, _run_steps(schedule, epoch)
    detail = f"{climbs} steps"
    if not limits.share.above(climbs / total) or not limits.steps.above(climbs):
        return passed(detail)
    return failed(detail, _draft(schedule, climbs, total, epoch))


def _epoch_steps(bench: Bench) -> int | None:
    epoch = train_epoch(bench)
    return len(epoch.batches) if epoch.complete else None


def _run_steps(schedule: RateCurve, epoch: int | None) -> int:
    pairs = zip(schedule.steps, schedule.rates, strict=True)
    over = (step for step, rate in pairs if step > schedule.peak_step and rate <= _OVER * schedule.peak)
    return next(over, None) or max(_EPOCHS * epoch if epoch else 0, _STEPS)


def _draft(schedule: RateCurve, climbs: int, total: int, epoch: int | None) -> Draft:
    after_100 = schedule.rates[min(range(len(schedule.steps)), key=lambda i: abs(schedule.steps[i] - 100))]
    return error(
        "warmup-too-long",
        f"the learning rate climbs for {climbs} steps, {climbs / total:.0%} of the run"
        + (f" ({climbs / epoch:.0f} epochs)" if epoch else "")
        + f": after 100 steps it is {after_100 / schedule.peak:.1%} of its peak",
        fix=f"warm up for about {max(10, total // 20)} steps, 5 % of the run",
        where="optimizer",
        warmup_steps=climbs,
        run_steps=total,
        peak=schedule.peak,
        rate_after_100=after_100,
    )


@check(
    "the schedule lasts",
    rung="sweep",
    causes=("schedule-out-of-step",),
    unless=ANY,
    early=Limit(0.5, "of an epoch"),
    epoch=Limit(1.0, "epochs"),
    calls=Limit(1, "calls an update"),
    whole=Limit(0.02, "from a whole number of epochs"),
)
def lasts(bench: Bench, limits: Gauges) -> Verdict:
    """Compares the update at which the schedule has ended, at 1 % of its peak or less, with the batches of an epoch,
    and with the calls of the step that an update takes.

    After its end training changes nothing. A schedule that counts calls of a step that collects several before it
    updates is at a fraction of its way when training ends.

    Example: a line over 40 steps, left from a trial, in a run of epochs of 125; `cosine_decay(rate, epochs * batches)`
    with an optimiser that is called at every fourth batch.

    Fix: count optimiser updates: batches of all epochs over the batches that an update collects.
    """
    schedule, epoch = bench.schedule, _epoch_steps(bench)
    end = _end(schedule)
    if not schedule.scheduled or schedule.peak <= 0 or not epoch or end is None:
        return passed("it does not end, or epochs were not read to the end")
    watched = watched_steps(bench)
    calls = round(watched.calls / watched.updates) if watched.updates else 1
    epochs = end * calls / epoch
    detail = f"{epochs:.2g} epochs"
    if limits.epoch.below(epochs):
        bad = limits.early.below(epochs)
        draft = (error if bad else warning)(
            "schedule-out-of-step",
            f"the learning rate is 0 from update {end} on, {epochs:.0%} of the first epoch of {epoch} batches: all "
            "training after it changes nothing",
            fix="let the schedule last for the updates of the whole run: epochs times batches",
            where="optimizer",
            end=end,
            epoch=epoch,
        )
        return failed(detail, draft) if bad else passed(detail, draft)
    if limits.calls.above(calls) and limits.whole.below(abs(end / epoch - round(end / epoch))):
        return passed(detail, _in_calls(end, epoch, calls))
    return passed(detail)


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
    if not bench.schedule.scheduled:
        return passed("a constant rate")
    each = counted(bench)
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
            fix="advance the schedule once an update, after the micro-batches that it collects",
            where="train_step",
            counted=each,
        ),
    )


def _in_calls(end: int, epoch: int, calls: int) -> Draft:
    return warning(
        "schedule-out-of-step",
        f"the schedule ends after {end} updates, as many as {round(end / epoch)} epochs have batches, but the step "
        f"updates at every {calls}th call alone: those epochs reach 1/{calls} of it",
        fix="count updates, not batches, in the schedule",
        where="optimizer",
        end=end,
        calls=calls,
    )


def _end(schedule: RateCurve) -> int | None:
    """The update from which the rate stays at 1 % of its peak or less."""
    low = None
    for step, rate in zip(schedule.steps, schedule.rates, strict=True):
        if rate > _OVER * schedule.peak or step <= schedule.peak_step:
            low = None
        elif low is None:
            low = step
    return low
