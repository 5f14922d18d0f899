"""Whether a model is taught to end a text, and nothing after that."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.data.ends import Ends, ends
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped, warning

# What makes the ends of rows something else than ends of texts.
_UNTRUE_ENDS = (
    "token-out-of-range",
    "targets-mismatched",
    "targets-not-shifted",
    "tokenizer-mismatch",
    "padding-in-loss",
)


@check(
    "the end token is trained",
    rung="data",
    causes=("end-never-trained",),
    unless=_UNTRUE_ENDS,
    rows=Limit(16, "rows with a masked tail"),
    share=Limit(0.5, "of all rows"),
    same=Limit(0.8, "of the rows with a masked tail; pieces of long texts have no end"),
    alike=Limit(0.6, "of the rows with a masked tail, whose last real target is the same"),
)
def end_trained(bench: Bench, limits: Gauges) -> Verdict:
    """Looks at the first masked target after each text, and at the last that counts.

    A model that was never told where texts end goes on for ever.
    Example: padding with the end token, and a mask of everything that is not padding; a mask one cell short.
    Fix: let the mask reach as far as the end token, the one after the text.
    """
    found = ends(bench)
    if found is None or limits.rows.below(found.rows) or limits.share.below(found.share):
        return skipped("hardly any row has a masked tail")
    told = _untold(found, limits)
    if told is None:
        return passed(f"{found.last_share:.0%} of the texts end with one token")
    token, words = told
    return failed(
        f"id {token} never counts",
        error(
            "end-never-trained",
            f"{words}, and id {token} is the target of no real cell: the model is never taught to end a text",
            fix="let the mask reach as far as the end token, and pad with another id, or mask by length",
            where="train_batches",
            end=token,
            rows=found.rows,
        ),
    )


def _untold(found: Ends, limits: Gauges) -> tuple[int, str] | None:
    """The end token that never counts, and how that was seen."""
    same = limits.same.below(found.first_share)
    if not same and found.first not in found.real:
        where = f"in {found.first_share:.0%} of the rows the first masked target is id {found.first}"
        if found.fill != found.first:
            return found.first, f"{where}, other ids fill the rest"
        if found.first == found.eos:
            return found.first, f"{where}, the tokenizer's end token, which fills the rest as well"
    if found.eos is None or found.eos in found.real:
        return None
    if limits.alike.below(found.last_share):
        return found.eos, f"the tokenizer's end token is id {found.eos}, rows are padded texts"
    if found.last == found.fill != found.eos:
        return (
            found.eos,
            f"texts end with one cell of padding, id {found.fill}, the tokenizer's end is id {found.eos}",
        )
    return None


@check(
    "nothing is trained after the end token",
    rung="data",
    causes=("padding-in-loss",),
    unless=_UNTRUE_ENDS,
    rows=Limit(16, "rows with a masked tail"),
    beyond=Limit(0.5, "of the rows with a masked tail"),
)
def ends_with_the_end(bench: Bench, limits: Gauges) -> Verdict:
    """Looks whether the last target that counts is the padding, behind the tokenizer's end token.

    One cell a row teaches to pad; and a mask that is not shifted with the targets leaves out a token at its other end,
    of an answer the first.
    Example: `steps <= lengths` for targets that begin one place later than the row.
    Fix: shift the mask with the targets, or let it end one cell earlier.
    """
    found = ends(bench)
    if found is None or limits.rows.below(found.rows):
        return skipped("hardly any row has a masked tail")
    detail = f"{found.beyond:.0%} of the rows"
    if not limits.beyond.above(found.beyond):
        return passed(detail)
    return passed(
        detail,
        warning(
            "padding-in-loss",
            f"in {found.beyond:.0%} of the rows the mask counts one cell of padding (id {found.fill}) behind the end "
            f"token (id {found.eos}): it is one place late, or one too long",
            fix="shift the mask along with the targets: it must end at the end token and, where only an answer counts, "
            "begin at its first token",
            where="train_batches",
            padding_id=found.fill,
            rows=found.rows,
        ),
    )
