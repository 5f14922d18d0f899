"""Whether a penalty in the loss outweighs the cross-entropy."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.step.decay import penalty
from mlxstories.ladder.bench.training.memorising import first_score, memorising
from mlxstories.ladder.checks.sweep.rate_evidence import sweep_evidence
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import ANY, check
from mlxstories.ladder.verdict import Verdict, error, failed, passed


@check(
    "penalty in the loss",
    rung="sweep",
    causes=("weight-decay-too-large",),
    needs=("loss",),
    unless=ANY,
    size=Limit(0.5, "nats"),
    difference=Limit(0.02, "of the penalty, between two batches"),
    misfit=Limit(0.03, "of the penalty, from growing as squares do"),
)
def penalised(bench: Bench, limits: Gauges) -> Verdict:
    """Where stories were not memorised: is what the loss adds to the cross-entropy a penalty on squared weights?

    It is recognised by being the same on any batch and by growing as the squares of the weights do. A penalty of
    more nats than the cross-entropy rules the gradient: the weights shrink to 0 instead of learning.

    Example: `cross_entropy + sum(w.square().sum())`, with a coefficient of 1.

    Fix: drop it and use `AdamW(weight_decay=0.1)` or less.
    """
    if memorising(bench).learned:
        return passed()
    found = penalty(bench)
    if (
        limits.size.below(found.size)
        or not limits.difference.below(found.difference)
        or limits.misfit.above(found.misfit)
    ):
        return passed()
    coefficient = found.size / found.squares
    return failed(
        f"{found.size:.3g} nats",
        error(
            "weight-decay-too-large",
            f"the loss holds a penalty of {found.size:.3g} on the squared weights (a coefficient of {coefficient:.2g}) "
            f"beside a cross-entropy of {first_score(bench)[0]:.2f} nats: it dominates the gradient",
            fix="drop the penalty and use AdamW with weight_decay 0.1 or less",
            where="loss",
            penalty=found.size,
            coefficient=coefficient,
            **sweep_evidence(bench),
        ),
    )
