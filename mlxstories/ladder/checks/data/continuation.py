"""Whether rows go on as their texts do, and end where these end."""

from __future__ import annotations

from collections.abc import Callable

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.data.continuation import Departures, RowEnds, departures, row_ends
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, skipped, warning

_UNLESS = (
    "token-out-of-range",
    "tokenizer-mismatch",
    "high-unknown-rate",
    "targets-mismatched",
    "targets-not-shifted",
    "constant-batches",
)


@check(
    "rows go on as their texts do",
    rung="data",
    causes=("targets-mismatched",),
    needs=("tokenizer", "train_texts"),
    unless=_UNLESS,
    rows=Limit(64, "rows whose last target was looked up"),
    last=Limit(0.5, "of the last targets"),
    elsewhere=Limit(0.05, "of all other targets"),
    alone=Limit(0.9, "of the last targets that depart"),
    ending=Limit(0.5, "of the places of that token"),
    begun=Limit(0.5, "of the rows that depart"),
)
def go_on(bench: Bench, limits: Gauges) -> Verdict:
    """Looks each target up in the texts, together with the eight tokens before it. Where these stand in a text that
    goes on, and no text goes on with the target, the row departs from its texts.

    Rows that depart at their last target, and nowhere else, were given something of their own in its place.
    Example: `np.roll(tokens, -1)`, where the last target of each row is the first token of another; an end token behind
    each piece of a text that is cut into pieces.
    Fix: cut rows of one token more than the inputs have, and end only what ends.
    """
    found = departures(bench)
    if found is None or limits.rows.below(found.rows):
        return skipped("the texts do not hold the ends of the rows")
    detail = (
        f"{found.last:.1%} of the last targets depart from the texts, {found.elsewhere:.1%} of all others"
    )
    if not limits.last.above(found.last) or not limits.elsewhere.below(found.elsewhere):
        return passed(detail)
    if not limits.alone.above(found.alone):
        return failed(detail, _of_another(found))
    # Long texts may be cut off where short ones end with the same token, and each row be a text of its own.
    if limits.ending.below(found.ending) and limits.begun.below(found.begun):
        return failed(detail, _cut_off(found, error))
    return passed(detail, _cut_off(found, warning))


def _of_another(found: Departures) -> Draft:
    return error(
        "targets-mismatched",
        f"{found.last:.0%} of the last targets of rows are not what the texts go on with, and "
        f"{found.elsewhere:.1%} of all others: the end of each row is given a token from somewhere else",
        fix="cut rows of one token more than the inputs have; rolled targets bring the first token of a row to its end",
        where="train_batches",
        last=found.last,
        elsewhere=found.elsewhere,
        rows=found.rows,
    )


def _cut_off(found: Departures, severity: Callable[..., Draft]) -> Draft:
    return severity(
        "targets-mismatched",
        f"{found.last:.0%} of the last targets of rows are id {found.token} where the texts go on with other tokens, "
        f"and {found.ending:.0%} of all places of that id are ends of texts: it learns to end in the midst of one",
        fix="put the end token behind the last token of a text, and not behind each piece of it",
        where="train_batches",
        token=found.token,
        last=found.last,
        elsewhere=found.elsewhere,
        at_ends=found.ending,
        rows=found.rows,
    )


@check(
    "rows end where their texts end",
    rung="data",
    causes=("targets-mismatched",),
    needs=("tokenizer", "train_texts"),
    unless=_UNLESS,
    rows=Limit(64, "rows"),
    ended=Limit(0.25, "of as many rows as begin a text"),
    again=Limit(0.5, "of the rows"),
    across=Limit(0.5, "of the rows"),
)
def end_with_text(bench: Bench, limits: Gauges) -> Verdict:
    """Of the rows that are filled up with padding, counts those that hold the beginning of a text, and those that end
    with one.

    A text that is cut where its row is full is sound, and so are pieces of texts in rows of their own, of which one
    begins its text, and one ends it. Where many rows with room to spare begin a text and hardly any ends one, they are
    cut by other lengths than the texts have.
    Rows that hold no other text and only break off their own, as `ids[: end - 1]` does, get a warning.
    Example: lengths that were taken before the end tokens were added, so that each row begins and ends one token
    earlier than the one before.
    Fix: make the index from the very tokens that it points into.
    """
    found = row_ends(bench)
    if found is None or limits.rows.below(found.begun):
        return skipped("hardly any row is filled up, or the texts do not hold them")
    detail = f"{found.begun} rows with room to spare begin a text, and {found.ended} end with one"
    if not limits.ended.below(found.ended / found.begun):
        return passed(detail)
    if not limits.again.above(found.again):
        return passed(f"{detail}; they are drawn anew in each epoch")
    if limits.across.above(found.across):
        return failed(detail, _broken_off(found, error))
    return passed(detail, _broken_off(found, warning))


def _broken_off(found: RowEnds, severity: Callable[..., Draft]) -> Draft:
    across = f", and {found.across:.0%} hold a piece of another one before it" if found.across else ""
    return severity(
        "targets-mismatched",
        f"of the rows that are filled up with padding {found.begun} begin a text{across}, but {found.ended} end "
        "with one, in both epochs: they are cut by other lengths than the texts have",
        fix="make the index of texts from the very tokens that it points into, marks of beginning and end among them",
        where="train_batches",
        begun=found.begun,
        ended=found.ended,
        across=found.across,
    )
