"""Whether training sees different stories."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.material import epoch_steps
from mlxstories.ladder.bench.variety import Neighbours, Variety, neighbours, same_again, variety
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, note, passed, warning


@check(
    "batches differ",
    rung="data",
    causes=("constant-batches",),
    unless=("token-out-of-range",),
    quick=True,
    few=Limit(3, "batches"),
    distinct=Limit(0.05, "of the batches"),
    uniform=Limit(0.5, "of the batches"),
    many=Limit(32, "rows"),
    distinct_rows=Limit(0.2, "of the rows"),
    one=Limit(0.99, "of the targets that count"),
)
def differ(bench: Bench, limits: Gauges) -> Verdict:
    """Counts the different batches and rows of an epoch and the commonest of its targets, and reads a second epoch.

    A loader that starts over, or an index that never advances, trains on a handful of stories; the loss falls nicely,
    and validation never follows. A generator handed out once is empty in the second epoch. Where all targets are one
    id, ids were made truth values, or all are unknown, and there is nothing to learn.
    Example: `train_batches=lambda seed: generator`, with one generator made outside.
    Fix: make `train_batches` a function that starts a new, reshuffled pass over all stories on every call.
    """
    seen = variety(bench)
    evidence = {
        "batches": seen.batches,
        "distinct_batches": seen.distinct,
        "distinct_rows": seen.distinct_rows,
        "commonest_target": seen.share,
    }
    detail = f"{seen.distinct} of {seen.batches} distinct"
    problem, drafts = _repeated(seen, limits), []
    if problem is None and epoch_steps(bench) is not None:
        problem, drafts = _second(bench, seen, limits, evidence)
    if problem is None:
        return passed(detail, *drafts, *_few_rows(seen, limits, evidence))
    fix = "make train_batches a function that starts a new, reshuffled pass over all stories on every call"
    if limits.one.above(seen.share):
        fix = "look at a batch, decoded: the ids of the text were lost on the way"
    return failed(detail, error("constant-batches", problem, fix=fix, where="train_batches", **evidence))


def _repeated(seen: Variety, limits: Gauges) -> str | None:
    few = limits.few.below(seen.batches)
    if not few and (not limits.distinct.above(seen.distinct / seen.batches) or seen.distinct == 1):
        return f"the {seen.batches} batches of an epoch are {seen.distinct} batch repeated"
    if limits.uniform.above(seen.uniform):
        return "all rows of a batch are the same row"
    return (
        f"id {seen.token} is {seen.share:.1%} of all targets that count"
        if limits.one.above(seen.share)
        else None
    )


def _second(
    bench: Bench, seen: Variety, limits: Gauges, evidence: dict[str, int]
) -> tuple[str | None, list[Draft]]:
    """What is wrong with the second epoch, or worth knowing of it."""
    again = same_again(bench)
    if again is None:
        return "train_batches yields nothing the second time it is called", []
    if not again or limits.few.below(seen.batches):
        return None, []
    message = "every epoch brings the same batches in the same order"
    fix = "shuffle with the seed that train_batches receives"
    return None, [note("constant-batches", message, fix=fix, **evidence)]


def _few_rows(seen: Variety, limits: Gauges, evidence: dict[str, int]) -> list[Draft]:
    if limits.many.below(seen.rows) or not limits.distinct_rows.below(seen.distinct_rows / seen.rows):
        return []
    message = f"an epoch of {seen.rows} rows holds only {seen.distinct_rows} different ones"
    return [warning("constant-batches", message, fix="let an epoch visit each story once", **evidence)]


@check(
    "neighbours differ",
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
    detail = (
        f"{found.delivered_again:.0%} of the batches come again, {found.moved_on:.0%} of the rows move on"
    )
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
        f"{found.carried_over:.0%} of the rows of a batch come again in the next one: an epoch goes over each row many "
        "times, and on within it slowly",
        fix="let each batch begin where the one before ended: range(0, len(rows) - size + 1, size)",
        where="train_batches",
        carried_over=found.carried_over,
    )


def _batch_moved_on(found: Neighbours) -> Draft:
    return error(
        "constant-batches",
        f"{found.batch_moved_on:.0%} of the rows are the row at their place in the batch before, {found.batch_by} "
        f"token{'s' * (found.batch_by > 1)} on: one batch after the other tells the same text again",
        fix="shuffle the windows, or let the next batch begin a whole row on",
        where="train_batches",
        moved_on=found.batch_moved_on,
        by=found.batch_by,
    )


def _moved_on(found: Neighbours) -> Draft:
    return error(
        "constant-batches",
        f"{found.moved_on:.0%} of the rows are the row before, {found.by} token{'s' * (found.by > 1)} on: each batch "
        "is one stretch of text many times over",
        fix="shuffle the windows, or let them begin a whole row apart",
        where="train_batches",
        moved_on=found.moved_on,
        by=found.by,
    )
