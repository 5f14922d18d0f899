"""Whether a source, or the rest of every text, is never read."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.data.unused_texts import text_beginnings, text_ends, unused_texts
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped, warning

_UNLESS = (
    *("token-out-of-range", "tokenizer-mismatch", "high-unknown-rate", "constant-batches"),
    "texts-never-seen",
)


@check(
    "every source reaches a batch",
    rung="data",
    causes=("texts-never-seen",),
    needs=("tokenizer", "train_texts", "val_batches"),
    unless=_UNLESS,
    of_a_kind=Limit(0.05, "of validation's rows"),
    median=Limit(0.05, "of the median row's stretches"),
    rows=Limit(64, "rows"),
)
def sources(bench: Bench, limits: Gauges) -> Verdict:
    """Takes stretches of six tokens of validation's rows that stand in the training texts, outside of what validation
    itself was cut from, and looks for them in the batches of two epochs, row by row.

    Where most rows lack nothing and some lack half, these are of another kind: of a source that is among the texts, and
    that no batch holds.
    Example: a mixture of two sources of which the loader reads the first.
    Fix: count the tokens of an epoch by source.
    """
    found = unused_texts(bench)
    if found is None or limits.rows.below(found.rows):
        return skipped("epochs were not read to the end, or validation is small")
    detail = f"{found.of_a_kind:.1%} of validation's rows, the median row lacks {found.median:.1%}"
    if not limits.of_a_kind.above(found.of_a_kind) or not limits.median.below(found.median):
        return passed(detail)
    return failed(
        detail,
        error(
            "texts-never-seen",
            f"in {found.of_a_kind:.0%} of validation's rows half or more of the six-token stretches occur in the "
            f"training texts but in no batch of two epochs (median row: {found.median:.1%}): these rows are of a kind, "
            "or from a source, that is among the texts and never read",
            fix="compare the tokens of an epoch, source by source, with those of the texts",
            where="train_batches",
            share=found.of_a_kind,
            rows=found.rows,
        ),
    )


@check(
    "more than the beginning of each text reaches a batch",
    rung="data",
    causes=("texts-never-seen",),
    needs=("tokenizer", "train_texts"),
    unless=_UNLESS,
    head=Limit(0.9, "of the stretches within the first row's length"),
    rest=Limit(0.2, "of the stretches behind it"),
    behind=Limit(0.5, "of the tokens"),
    texts=Limit(32, "texts longer than two rows"),
)
def beyond_the_head(bench: Bench, limits: Gauges) -> Verdict:
    """Looks for stretches of 12 tokens of the texts that are longer than two rows in the batches of two epochs: within
    the first row's length of each text, and behind it.

    A text cut to the length of a row loses all the rest, in every epoch.
    Example: `tokenizer.encode(text)[:context]`, or `truncation=True`.
    Fix: split a long text over several rows, or pack texts one after the other.
    """
    found = text_beginnings(bench)
    if found is None or limits.texts.below(found.texts):
        return skipped("epochs were not read to the end, or few texts are longer than two rows")
    detail = f"{found.head:.0%} of the beginnings, {found.rest:.0%} of the rest"
    certain = (
        limits.head.above(found.head) and limits.rest.below(found.rest) and limits.behind.above(found.behind)
    )
    if not certain:
        return passed(detail)
    return failed(
        detail,
        error(
            "texts-never-seen",
            f"of {found.texts} texts longer than two rows, the batches of two epochs hold {found.head:.0%} of what "
            f"lies within the first row's length and {found.rest:.0%} of what follows, which is {found.behind:.0%} of "
            "their tokens: each text is cut to one row and the rest is thrown away",
            fix="split a long text over several rows, or pack texts one after the other",
            where="train_batches",
            texts=found.texts,
            head=found.head,
            rest=found.rest,
        ),
    )


@check(
    "the ends of texts reach a batch",
    rung="data",
    causes=("texts-never-seen",),
    needs=("tokenizer", "train_texts"),
    unless=_UNLESS,
    begun=Limit(0.5, "of the beginnings"),
    ended=Limit(0.1, "of the ends"),
    lost=Limit(0.05, "of the tokens"),
    texts=Limit(32, "texts longer than a row"),
)
def to_the_end(bench: Bench, limits: Gauges) -> Verdict:
    """Looks for the first and for the last 12 tokens of the texts that are longer than a row, in the batches of two
    epochs.

    Where each text is cut into rows by itself, and what is left behind the last whole row is thrown away, no batch ever
    holds the end of a text, and the model never learns to come to one.
    Example: `range(0, len(ids) - context, context)` for each text; texts that are cut off at the length of a row.
    Fix: pad the last piece of a text, or join the texts, with an end token behind each, before they are cut.
    """
    found = text_ends(bench)
    if found is None or limits.texts.below(found.texts):
        return skipped("epochs were not read to the end, or few texts are longer than a row")
    detail = f"{found.begun:.0%} of the beginnings, {found.ended:.0%} of the ends"
    kept = not limits.ended.below(found.ended) or not limits.lost.above(found.lost)
    if kept or not limits.begun.above(found.begun):
        return passed(detail)
    return passed(
        detail,
        warning(
            "texts-never-seen",
            f"of {found.texts} texts longer than a row, the batches of two epochs hold {found.begun:.0%} of the "
            f"beginnings and {found.ended:.0%} of the ends: the last {found.lost:.0%} of their tokens are thrown away, "
            "and the model never learns how a text ends",
            fix="pad the last piece of a text, or join the texts, with an end token behind each, before they are cut",
            where="train_batches",
            texts=found.texts,
            begun=found.begun,
            ended=found.ended,
            lost=found.lost,
        ),
    )
