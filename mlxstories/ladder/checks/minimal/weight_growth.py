"""Whether an update adds the weights to themselves."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.step.steps import watched_steps
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped
from mlxstories.ladder.where import arithmetic, place


@check(
    "updates leave the weights' size alone",
    rung="minimal",
    causes=("extreme-constants",),
    unless=("not-finite", "no-update"),
    grown=Limit(0.03, "of the weights, added to themselves"),
    along=Limit(0.5, "cosine of the update with the weights"),
)
def grown(bench: Bench, limits: Gauges) -> Verdict:
    """Looks whether the first update is most of all a multiple of the weights.

    A gradient is nearly orthogonal to random weights, and decay shrinks them a little. An update that makes all of
    them larger comes from the optimiser's own arithmetic, and changes the model's scale.

    Example: shares of two averages of the weights that add up to more than 1; decay of the wrong sign.

    Fix: let such shares add up to 1, and take decay off the weights.
    """
    watched = watched_steps(bench)
    if not watched.updates:
        return skipped("no update among the first calls")
    share, cosine = -watched.decays[0], watched.along
    detail = f"{share:+.1e} of them, cosine {cosine:.2f}"
    if not (limits.grown.above(share) and limits.along.above(cosine)):
        return passed(detail)
    return failed(
        detail,
        error(
            "extreme-constants",
            f"the first update adds {share:.0%} of the weights to themselves, whatever the gradient is (cosine "
            f"{cosine:.2f}): shares of them in the optimiser's step add up to more than 1, or decay has the wrong sign",
            fix="let the shares of averages of the weights add up to 1, and take decay off the weights",
            where=place(arithmetic.ends(bench)) or "optimizer",
            grown=share,
            cosine=cosine,
        ),
    )
