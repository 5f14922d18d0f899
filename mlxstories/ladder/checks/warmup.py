"""Whether the learning rate still climbs when training ends."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.material import train_epoch
from mlxstories.ladder.bench.memorising import memorising
from mlxstories.ladder.bench.optimizers import RateCurve
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import ANY, check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, skipped

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
