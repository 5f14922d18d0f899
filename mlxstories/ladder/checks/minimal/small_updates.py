"""Whether updates are large enough for the precision of the weights."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.step.steps import watched_steps
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped, warning


@check(
    "updates reach the weights",
    rung="minimal",
    causes=("update-below-precision",),
    unless=("not-finite", "no-update", "stale-computation"),
    stuck=Limit(0.7, "of the entries with a gradient"),
    some=Limit(0.4, "of the entries with a gradient"),
    started=Limit(0.5, "of the schedule's peak"),
)
def updates_reach(bench: Bench, limits: Gauges) -> Verdict:
    """Counts, over a few training steps, the entries of weights of 16 bits that have a gradient and stay as they are.

    bfloat16 has 8 bits of precision: what is added to a weight is lost where it is smaller than a 500th of it. A
    small rate then moves nothing but the smallest weights.
    Example: a model of bfloat16 throughout, at a rate of 1e-5.
    Fix: keep weights in float32 (or a float32 copy for the optimiser), and cast for the forward pass.
    """
    watched, peak = watched_steps(bench), bench.schedule.peak
    if watched.stuck is None:
        return skipped("no weights of 16 bits")
    detail = f"{watched.stuck:.0%} stay as they are over {watched.calls} calls"
    rate = max((rate for rate in watched.rates if rate is not None), default=peak)
    if bench.schedule.scheduled and limits.started.below(rate / peak if peak else 1.0):
        return skipped("the learning rate is still warming up")
    if not limits.some.above(watched.stuck):
        return passed(detail)
    bad = limits.stuck.above(watched.stuck)
    draft = (error if bad else warning)(
        "update-below-precision",
        f"{watched.stuck:.0%} of the entries of 16-bit weights that have a gradient stay as they are over "
        f"{watched.updates} updates: what the optimiser adds is smaller than their precision",
        fix="keep the weights, or a copy of them for the optimiser, in float32 and cast for the forward pass; or raise "
        "the learning rate",
        where="optimizer",
        stuck=watched.stuck,
        updates=watched.updates,
    )
    return failed(detail, draft) if bad else passed(detail, draft)
