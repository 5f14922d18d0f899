"""Whether the learning rate still climbs when training ends."""

from __future__ import annotations

from mlxstories.findings.limits import CLIMBS
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.epochs import epoch_steps
from mlxstories.ladder.bench.step.plan import PartRate, Plan, part_rates, planned
from mlxstories.ladder.bench.training.memorising import memorising
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import ANY, check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, skipped, worst


@check(
    "warmup",
    rung="sweep",
    causes=("warmup-too-long",),
    unless=ANY,
    share=CLIMBS,
    steps=Limit(100, "steps, of a run whose length is assumed"),
)
def warmup(bench: Bench, limits: Gauges) -> Verdict:
    """Reads the learning-rate schedule and asks whether the run reaches its peak, and in time.

    A run has the updates that the subject states; else it ends where the schedule does, or after 20 epochs, and not
    before 1000 steps.

    Example: `optim.linear_schedule(0, 1e-3, 100_000)` for a run of 2000 steps.

    Fix: warm up for about 5 % of the run.
    """
    return worst(_warms(bench, part, limits) for part in part_rates(bench))


def _warms(bench: Bench, part: PartRate, limits: Gauges) -> Verdict:
    schedule, run = part.curve, planned(bench, part.curve)
    if not schedule.scheduled or schedule.peak <= 0:
        return passed("a constant rate")
    if not memorising(bench).learned:
        return skipped("a few stories were not memorised")
    detail = f"{run.warmup} of {run.updates} steps" if run.stated else f"{run.warmup} steps"
    if not limits.share.above(run.share) or not (run.stated or limits.steps.above(run.warmup)):
        return passed(detail)
    return failed(detail, _draft(bench, part, run))


def _draft(bench: Bench, part: PartRate, run: Plan) -> Draft:
    schedule, epoch = part.curve, epoch_steps(bench)
    look = min(100, run.updates)
    there = float(schedule.at(look)) / schedule.peak
    length = (
        f"of {run.updates}"
        if run.stated or not epoch
        else f"of {run.updates}, {run.updates / epoch:.0f} epochs"
    )
    ends = f"{run.share:.0%} of a run {length}" if run.share <= 1 else f"longer than a run {length}"
    return error(
        "warmup-too-long",
        f"the learning rate{part.of} climbs for {run.warmup} steps, {ends}: after {look} steps it is {there:.1%} of "
        "its peak",
        fix=f"warm up for about {max(1 if run.stated else 10, run.updates // 20)} steps, 5 % of the run",
        where="optimizer",
        warmup_steps=run.warmup,
        run_steps=run.updates,
        peak=schedule.peak,
        rate_there=there * schedule.peak,
    )
