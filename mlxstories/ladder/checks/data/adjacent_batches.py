"""Whether batches that follow one another, and rows of one batch, are different texts."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.data.variety import Neighbours, neighbours
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed


@check(
    "successive batches differ",
    rung="data",
    causes=("constant-batches",),
    unless=("token-out-of-range", "constant-batches"),
    again=Limit(0.5, "of the batches"),
    moved=Limit(0.5, "of the rows"),
    rows=Limit(16, "rows"),
    carried=Limit(0.5, "of the rows"),
)
def neighbours_differ(bench: Bench, limits: Gauges) -> Verdict:
    """Compares each batch with the eight after it, and each row with the next of its batch, and with the one at its
    place in the next batch, moved on by one to eight tokens; and counts the rows that the next batch holds too.

    Such batches hold one text many times over: their gradient is that of a single row, and the next batch undoes what
    this one taught.
    Example: loader workers that all draw with one seed; windows at every token, in order; batches that begin one row
    apart, `for i in range(0, len(rows) - size)`.
    Fix: seed each worker differently; shuffle the windows; let batches begin a whole batch apart.
    """
    found = neighbours(bench)
    moved = max(found.moved_on, found.batch_moved_on)
    detail = f"{found.delivered_again:.0%} of the batches come again, {moved:.0%} of the rows move on"
    draft = None
    if limits.again.above(found.delivered_again):
        draft = error(
            "constant-batches",
            f"{found.delivered_again:.0%} of the batches are delivered again within the next eight: as when all "
            "workers of a loader draw with one seed",
            fix="seed each worker with its own number",
            where="train_batches",
            delivered_again=found.delivered_again,
        )
    elif limits.carried.above(found.carried_over):
        draft = _carried_over(found)
    elif limits.moved.above(found.moved_on) and not limits.rows.below(found.rows):
        draft = _moved_on(found)
    elif limits.moved.above(found.batch_moved_on) and not limits.rows.below(found.rows):
        draft = _batch_moved_on(found)
    return failed(detail, draft) if draft else passed(detail)


def _carried_over(found: Neighbours) -> Draft:
    return error(
        "constant-batches",
        f"{found.carried_over:.0%} of the rows of a batch come again in the next one: an epoch repeats each row many "
        "times and moves on slowly",
        fix="let each batch begin where the one before ended: range(0, len(rows) - size + 1, size)",
        where="train_batches",
        carried_over=found.carried_over,
    )


def _batch_moved_on(found: Neighbours) -> Draft:
    return error(
        "constant-batches",
        f"{found.batch_moved_on:.0%} of the rows are those at the same place of the batch before, moved on by "
        f"{found.batch_by} token{'s' * (found.batch_by > 1)}: batch after batch repeats the same text",
        fix="shuffle the windows, or let the next batch begin a whole row on",
        where="train_batches",
        moved_on=found.batch_moved_on,
        by=found.batch_by,
    )


def _moved_on(found: Neighbours) -> Draft:
    return error(
        "constant-batches",
        f"{found.moved_on:.0%} of the rows are the row before moved on by {found.by} token{'s' * (found.by > 1)}: each "
        "batch is one stretch of text many times over",
        fix="shuffle the windows, or let them begin a whole row apart",
        where="train_batches",
        moved_on=found.moved_on,
        by=found.by,
    )
