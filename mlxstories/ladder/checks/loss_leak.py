"""Whether the loss shows the model later tokens that ``model(tokens)`` hides."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.dependence import loss_sees_future
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped


@check(
    "the loss sees no later token",
    rung="init",
    causes=("future-leak",),
    needs=("loss",),
    unless=("token-out-of-range", "not-finite", "not-repeatable", "future-leak", "batch-leak"),
    quick=True,
    moved=Limit(1e-3, "of the change by the prefix"),
)
def loss_leak(bench: Bench, limits: Gauges) -> Verdict:
    """Masks all but the first half of a row, changes inputs after it, and looks whether the loss moves.

    The model is trained through the loss: where that calls it without its causal mask, training sees the future
    although the model alone does not.
    Example: `loss` calls `model(inputs, mask=padding_mask)` and thereby replaces the causal mask.
    Fix: let loss and `model(tokens)` use the same causal mask.
    """
    seen = loss_sees_future(bench)
    if seen is None:
        return skipped("the loss heeds no mask, or does not depend on a prefix alone")
    detail = f"{seen:.1e} relative change"
    if not limits.moved.above(seen):
        return passed(detail)
    return failed(
        detail,
        error(
            "future-leak",
            f"the loss over a prefix changes by {seen:.1%} when only later inputs change: the loss calls the "
            "model without its causal mask",
            fix="let loss and model(tokens) use the same causal mask",
            where="loss",
            relative_change=seen,
        ),
    )
