"""Whether every epoch goes from short texts to long ones, or back."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.data.length_order import length_order
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, passed, skipped, warning


@check(
    "batches are not in order of length",
    rung="data",
    causes=("constant-batches",),
    unless=("token-out-of-range", "constant-batches"),
    batches=Limit(10, "batches"),
    spread=Limit(1.5, "times as long"),
    order=Limit(0.98, "rank correlation"),
)
def in_order_of_length(bench: Bench, limits: Gauges) -> Verdict:
    """Correlates the place of each batch in its epoch with the mean length of its rows, in two epochs.

    A model that is shown short texts first and long ones last, again and again, forgets the short ones by the end of
    each epoch. One epoch in order, as a start, is a curriculum and no fault.
    Example: `sorted(rows, key=len)` so that batches need little padding, without shuffling the batches.
    Fix: put rows of similar length into a batch, and shuffle the batches.
    """
    found = length_order(bench)
    if found is None:
        return skipped("epochs were not read to the end")
    detail = f"rank correlation {found.first:.2f} and {found.second:.2f}"
    if limits.batches.below(found.batches) or limits.spread.below(found.longest / max(found.shortest, 1)):
        return passed("few batches, or rows of much the same length")
    same_way = found.first * found.second > 0
    if not same_way or limits.order.below(min(abs(found.first), abs(found.second))):
        return passed(detail)
    shortest, longest = sorted((found.shortest, found.longest), reverse=found.first < 0)
    draft = warning(
        "constant-batches",
        f"every epoch brings its rows in order of length, from {shortest:.0f} tokens to {longest:.0f} (rank "
        f"correlation {found.first:.2f} and {found.second:.2f} in two epochs); debug --deep measures what that costs",
        fix="put rows of similar length into a batch, and shuffle the batches by the seed that train_batches gets",
        where="train_batches",
        correlation=found.first,
        correlation_of_second_epoch=found.second,
        batches=found.batches,
    )
    return passed(detail, draft)
