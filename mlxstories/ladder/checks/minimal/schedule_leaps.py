"""Whether the pieces of a learning-rate schedule meet."""

from __future__ import annotations

from mlxstories.findings.limits import LEAPS
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.step.plan import PartRate, part_rates
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, passed, warning, worst


@check("the schedule's pieces meet", rung="minimal", causes=("schedule-out-of-step",), leaps=LEAPS)
def pieces_meet(bench: Bench, limits: Gauges) -> Verdict:
    """Looks at a rate that climbs little by little from the start, and whether it leaps on its way or where that ends.

    Two pieces that do not meet state two rates, and one of them is wrong. A rate that is held low at first, that falls
    in stages, or that is raised again after it had fallen, is sound.

    Example: `optim.join_schedules([optim.linear_schedule(0, 1e-4, 100), optim.cosine_decay(1e-3, 900)], [100])`.

    Fix: let each piece start at the rate at which the one before it ends.
    """
    return worst(_meets(part, limits) for part in part_rates(bench))


def _meets(part: PartRate, limits: Gauges) -> Verdict:
    leap = part.curve.leap
    if leap is None:
        return passed("it does not climb")
    detail = f"{leap.before:.3g} after {leap.update + 1} updates, then {leap.after:.3g}"
    if not limits.leaps.above(leap.times):
        return passed(detail)
    return passed(
        detail,
        warning(
            "schedule-out-of-step",
            f"the learning rate{part.of} climbs to {leap.before:.3g} over {leap.update + 1} updates, and is "
            f"{leap.after:.3g} at the next one: the schedule's pieces do not meet",
            fix="let each piece start at the rate at which the one before it ends",
            where="optimizer",
            update=leap.update,
            before=leap.before,
            after=leap.after,
        ),
    )
