"""Whether texts that share a row are told apart, and whether a prompt is there for the model to read."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.data.text_boundaries import erased, text_boundaries
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped

_UNLESS = (
    "token-out-of-range",
    "tokenizer-mismatch",
    "high-unknown-rate",
    "targets-mismatched",
    "targets-not-shifted",
)


@check(
    "texts that share a row are told apart",
    rung="data",
    causes=("end-never-trained",),
    needs=("tokenizer", "train_texts"),
    unless=(*_UNLESS, "end-never-trained", "constant-batches"),
    count=Limit(16, "places where a text begins right behind another"),
)
def told_apart(bench: Bench, limits: Gauges) -> Verdict:
    """Where the tokenizer names an end token that no row holds: looks for places where the last tokens of one text are
    followed by the first of another, with nothing between them.

    The model learns that texts go on into others, and never to end one.
    Example: `np.concatenate([tokenizer.encode(text) for text in texts])`.
    Fix: append the end token to each text before they are joined.
    """
    found = text_boundaries(bench)
    if found is None or found.used:
        return skipped("the tokenizer names no end token, or rows hold it")
    detail = f"{found.count} texts begin right behind another"
    if not limits.count.above(found.count):
        return passed(detail)
    return failed(
        detail,
        error(
            "end-never-trained",
            f"texts are joined with nothing between them ({found.count} places in the rows that were read), and the "
            f"tokenizer's end token, id {found.end}, stands at none of them: the model learns to run on into another "
            "text and never to end one",
            fix="append the end token to each text before they are joined",
            where="train_batches",
            end=found.end,
            places=found.count,
        ),
    )


@check(
    "the prompt is there to be read",
    rung="data",
    causes=("tokenizer-mismatch",),
    needs=("tokenizer", "train_texts"),
    unless=(*_UNLESS, "constant-batches"),
    filled=Limit(0.95, "of the places before the first target that counts"),
    known=Limit(0.5, "of the rows that the texts hold"),
    rows=Limit(16, "rows"),
)
def prompt_there(bench: Bench, limits: Gauges) -> Verdict:
    """Where the loss leaves out what stands first in a row: looks whether the inputs hold one and the same id there,
    and the texts, before what counts, real tokens.

    Padding in front of a text is sound. A prompt that was overwritten together with its labels is not: the model is
    asked to go on from nothing.
    Example: `labels = tokens[1:]; labels[:prompt] = pad`, where the inputs are a view of the same array.
    Fix: copy the labels before they are masked.
    """
    found = erased(bench)
    if found is None or limits.rows.below(found.rows):
        return skipped("nothing is left out in front, or the texts do not hold the rows")
    detail = f"{found.filled:.0%} of the places in front hold id {found.token}"
    if not limits.filled.above(found.filled) or not limits.known.above(found.known):
        return passed(detail)
    return failed(
        detail,
        error(
            "tokenizer-mismatch",
            f"before the first target that counts {found.filled:.0%} of the inputs are id {found.token}, where the "
            f"texts have other tokens in {found.known:.0%} of the rows: what the loss should leave out was erased from "
            "the inputs as well, and the model never reads it",
            fix="copy the targets before masking them: the inputs are a view of the same array",
            where="train_batches",
            token=found.token,
            rows=found.rows,
        ),
    )
