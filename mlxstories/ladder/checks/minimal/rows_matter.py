"""Whether training learns from all of a batch."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.loss.influence import row_influence
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped


@check(
    "every row matters to a step",
    rung="minimal",
    causes=("rows-ignored",),
    needs=("train_step",),
    unless=("not-finite", "no-update", "targets-mismatched", "constant-batches"),
    rows=Limit(1, "rows tried that have no influence"),
)
def rows(bench: Bench, limits: Gauges) -> Verdict:
    """Changes one row of a batch after the other and compares the weights after a step.

    Rows without influence cost time and teach nothing.

    Example: a loop over micro-batches that takes the same slice each time, or keeps only the last one's gradient.

    Fix: slice each micro-batch inside the loop, and add its gradients to those before.
    """
    found = row_influence(bench)
    if isinstance(found, str):
        return skipped(found)
    detail = f"{len(found.tried) - len(found.ignored)} of {len(found.tried)} rows tried"
    if not limits.rows.above(len(found.ignored)):
        return passed(detail)
    if len(found.ignored) == len(found.tried):
        return skipped("no row has any influence")
    if found.loss_alike:
        told, fix = (
            "nor its loss",
            "hand each micro-batch its own slice of the batch: take it inside the loop",
        )
    else:
        told = "although its loss does: their gradients are lost"
        fix = "add every micro-batch's gradients up before the one update; reset the sum only after it"
    return failed(
        detail,
        error(
            "rows-ignored",
            f"{len(found.ignored)} of {len(found.tried)} rows tried of a batch of {found.rows} can be changed and the "
            f"step's update does not, {told} (rows {', '.join(map(str, found.ignored))})",
            fix=fix,
            where="train_step",
            tried=found.tried,
            ignored=found.ignored,
        ),
    )
