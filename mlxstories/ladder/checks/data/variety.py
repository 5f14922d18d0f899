"""Whether training sees different stories."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.data.variety import Variety, same_again, variety
from mlxstories.ladder.bench.epochs import epoch_steps
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
    two=Limit(0.99, "of the targets that count"),
    ids=Limit(8, "ids in the vocabulary"),
)
def differ(bench: Bench, limits: Gauges) -> Verdict:
    """Counts the different batches and rows of an epoch and the commonest of its targets, and reads a second epoch.

    A loader that starts over, or an index that never advances, trains on a handful of stories; the loss falls nicely,
    and validation never follows. A generator handed out once is empty in the second epoch. Where all targets are one
    id, or one of two, ids were made truth values, or all are unknown, and there is little or nothing to learn.
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
    fix = (
        "draw other rows for each batch: set a seed once, before the loop, let an index move on, and start a new, "
        "reshuffled pass over all stories whenever train_batches is called"
    )
    if problem is None and epoch_steps(bench) is not None:
        problem, drafts = _second(bench, seen, limits, evidence)
    if problem is None and limits.one.above(seen.share):
        problem = f"id {seen.token} is {seen.share:.1%} of all targets that count"
        fix = "look at a batch, decoded: the ids of the text were lost on the way"
    if problem is None:
        drafts += _truth_values(bench, seen, limits, evidence)
        return passed(detail, *drafts, *_few_rows(seen, limits, evidence))
    return failed(detail, error("constant-batches", problem, fix=fix, where="train_batches", **evidence))


def _repeated(seen: Variety, limits: Gauges) -> str | None:
    few = limits.few.below(seen.batches)
    if not few and (not limits.distinct.above(seen.distinct / seen.batches) or seen.distinct == 1):
        return f"the {seen.batches} batches of an epoch are {seen.distinct} batch repeated"
    return "all rows of a batch are the same row" if limits.uniform.above(seen.uniform) else None


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


def _truth_values(bench: Bench, seen: Variety, limits: Gauges, evidence: dict[str, int]) -> list[Draft]:
    if not (limits.two.above(seen.two) and limits.ids.above(bench.subject.vocab_size)):
        return []
    message = f"two ids of {bench.subject.vocab_size} are {seen.two:.1%} of all targets that count"
    fix = "look at a batch, decoded: a comparison in place of ids leaves 0 and 1"
    return [warning("constant-batches", message, fix=fix, where="train_batches", **evidence)]


def _few_rows(seen: Variety, limits: Gauges, evidence: dict[str, int]) -> list[Draft]:
    if limits.many.below(seen.rows) or not limits.distinct_rows.below(seen.distinct_rows / seen.rows):
        return []
    message = f"an epoch of {seen.rows} rows holds only {seen.distinct_rows} different ones"
    return [warning("constant-batches", message, fix="let an epoch visit each story once", **evidence)]
