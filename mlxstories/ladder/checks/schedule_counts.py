"""Whether the learning-rate schedule goes by updates."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.onward import counted
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped


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
