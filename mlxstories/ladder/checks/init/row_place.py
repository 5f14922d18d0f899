"""Whether a row's logits depend on where in the batch it stands, or on how many rows there are."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.consistency import places
from mlxstories.ladder.checks.init import consistency
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed


@check(
    "a row's place makes no difference",
    rung="init",
    causes=("batch-leak",),
    unless=("token-out-of-range", "not-finite", "not-repeatable", "batch-leak"),
    quick=True,
    **consistency.LIMITS,
)
def place(bench: Bench, limits: Gauges) -> Verdict:
    """Shows the model a row alone and twice among four rows, and compares.

    The batch has no order and no size that a row could know of: what depends on them is lost when the model
    validates or writes with another number of rows.
    Example: `self.positions(mx.arange(x.shape[0]))`, positions that count rows instead of tokens.
    Fix: take every size from the axis that is meant, `x.shape[1]` for tokens.
    """
    found = places(bench)
    alone, last = (change.judged(found.full_precision) for change in (found.alone, found.last))
    limit = consistency.tolerance(limits, found.full_precision)
    detail = f"{max(alone, last):.1e} of the logits' spread"
    by_number = limit.above(last)
    if not (limit.above(alone) or by_number):
        return passed(detail)
    what = (
        f"the same row gives other logits as row 4 than as row 2 of one batch, by {last:.1e} of their spread: "
        "something counts rows where tokens are meant"
        if by_number
        else f"a row gives other logits alone than among four, by {alone:.1e} of their spread: the model depends on "
        "the size of the batch"
    )
    return failed(
        detail,
        error(
            "batch-leak",
            what,
            fix="compute positions, masks and means along the token axis, axis 1 of [B, T], never along the rows",
            where="model",
            change_by_number=last,
            change_against_alone=alone,
        ),
    )
