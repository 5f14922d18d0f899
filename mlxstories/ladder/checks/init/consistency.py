"""Whether the model says the same of a row each time it is shown."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.consistency import repeats
from mlxstories.ladder.limits import Gauge, Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed

LIMITS = {
    "rounding": Limit(1e-3, "of the logits' spread"),
    "coarse_rounding": Limit(0.2, "of the logits' spread at most positions, with weights of 16 bits"),
}
"""By how much a row's logits may differ between two ways to compute them."""


def tolerance(limits: Gauges, full_precision: bool) -> Gauge:
    """The limit for this precision; ``limits`` holds `LIMITS`."""
    return limits.rounding if full_precision else limits.coarse_rounding


@check(
    "output is repeatable",
    rung="init",
    causes=("not-repeatable",),
    unless=("token-out-of-range", "not-finite"),
    quick=True,
    **LIMITS,
)
def repeatable(bench: Bench, limits: Gauges) -> Verdict:
    """Shows the model in evaluation mode the same row three times, once after another seed.

    A model whose answers vary cannot be validated, and every comparison of its logits says something else.
    Example: dropout by a function that does not look at `self.training`.
    Fix: draw nothing at random in evaluation mode: `nn.Dropout`, or `if self.training`.
    """
    found = repeats(bench)
    limit = tolerance(limits, found.full_precision)
    same, other = (c.judged(found.full_precision) for c in (found.same_seed, found.other_seed))
    detail = f"{max(same, other):.1e} of the logits' spread"
    drifts = limit.above(same)
    if not (limit.above(other) or drifts):
        return passed(detail)
    why = (
        "even after the same seed: the model keeps something from call to call"
        if drifts
        else "when only the seed changes: dropout, or another draw, is on"
    )
    fix = (
        "keep no state between calls of model(tokens), and draw with mx.random only"
        if drifts
        else "let dropout and everything random heed model.eval(): nn.Dropout, or `if self.training`"
    )
    return failed(
        detail,
        error(
            "not-repeatable",
            f"in evaluation mode the same row gives logits that differ by {max(same, other):.1e} of "
            f"their spread, {why}",
            fix=fix,
            where="model",
            change_after_same_seed=same,
            change_after_other_seed=other,
        ),
    )
