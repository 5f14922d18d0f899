"""Whether what reaches the optimiser depends on the order of a batch's rows."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.step.row_order import row_order
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped


@check(
    "the order of rows makes no difference to a step",
    rung="minimal",
    causes=("gradient-mismatch",),
    needs=("train_step",),
    unless=("not-finite", "no-update", "loss-sign", "rows-ignored", "stale-computation", "gradient-mismatch"),
    received=Limit(0.3, "of its length"),
    own=Limit(0.01, "of its length"),
)
def rows_in_order(bench: Bench, limits: Gauges) -> Verdict:
    """Reverses the rows of a batch and compares what reaches the optimiser, dropout off, and the loss's own gradient:
    a loss may weigh rows by their place on purpose, a step should not do so by itself.

    Gradients of a batch's parts are a sum, and a sum has no order.
    Example: `clip_grad_norm` of the sum so far, before or after each part is added: the last part outweighs all others.
    Fix: add up the gradients of all parts, and clip the sum once.
    """
    found = row_order(bench)
    if found is None:
        return skipped("gradients cannot be read, or are not those of one update for each call")
    detail = f"{found.received:.1e} of its length"
    if limits.own.above(found.own) or not limits.received.above(found.received):
        return passed(detail)
    return failed(
        detail,
        error(
            "gradient-mismatch",
            f"with the rows of a batch in reverse order, what reaches the optimiser changes by {found.received:.0%} of "
            "its length, and the gradient of the loss does not: rows count by their place in the batch, as when the "
            "sum of gradients is clipped each time a part is added",
            fix="add up the gradients of all parts of the batch, and clip the sum once, right before the update",
            where="train_step",
            received=found.received,
            own=found.own,
        ),
    )
