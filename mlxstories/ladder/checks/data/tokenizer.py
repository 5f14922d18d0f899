"""Whether the batches were made by this tokenizer from these texts."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.data.corrupted import corrupted
from mlxstories.ladder.bench.data.tokens import Fit, train_fit, val_fit
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped

_ABOUT = {
    "rung": "data",
    "causes": ("tokenizer-mismatch",),
    "unless": ("token-out-of-range",),
    "quick": True,
    "enough": Limit(5, "phrases"),
    "lossless": Limit(0.2, "of the tokenizer's own phrases"),
    "fits": Limit(0.6, "of what the tokenizer's own phrases reach"),
}
_FIX = "encode training and validation with one and the same tokenizer, and hand that one over"


@check("tokenizer fits the train batches", needs=("tokenizer", "train_texts"), **_ABOUT)
def train_tokenizer(bench: Bench, limits: Gauges) -> Verdict:
    """Decodes training rows and looks their phrases of four words up in `train_texts`; texts that the tokenizer itself
    encoded and decoded show what to expect.

    With another vocabulary, or its words in another order, training runs as usual, and what the model writes is
    gibberish.
    Example: a tokenizer trained again after the shards were written.
    Fix: store the tokenizer beside the batches that it made, and hand that one over.
    """
    return _fits(bench, train_fit(bench), "train", limits)


@check("tokenizer fits the val batches", needs=("tokenizer", "val_batches", "val_texts"), **_ABOUT)
def val_tokenizer(bench: Bench, limits: Gauges) -> Verdict:
    """Decodes validation rows and looks their phrases up in `val_texts`.

    Validation encoded otherwise than training measures the encoding.
    Example: validation shards from an earlier download, with the tokenizer of that day.
    Fix: encode training and validation with one and the same tokenizer.
    """
    return _fits(bench, val_fit(bench), "val", limits)


def _fits(bench: Bench, found: Fit | None, source: str, limits: Gauges) -> Verdict:
    if found is None:
        return skipped(f"{source}_texts is empty")
    if found.own is None:
        return _beyond(found, bench.subject.vocab_size)
    if found.rows is None:
        return _undecodable(found, source)
    own, rows = found.own, found.rows
    short = limits.enough.below(own.count) or limits.enough.below(rows.count)
    if short or limits.lossless.below(own.share):
        return skipped("decoded texts too short or lossy to compare")
    detail = f"{rows.share:.0%} of decoded phrases are in the texts"
    if not limits.fits.below(rows.share / own.share):
        return passed(detail)
    if source == "train" and corrupted(bench):
        return skipped("a part of the inputs is drawn anew in each epoch")
    draft = error(
        "tokenizer-mismatch",
        f"decoded with this tokenizer, {rows.share:.0%} of the {source} batches' phrases occur in {source}_texts, "
        f"where {own.share:.0%} would if it had made them",
        fix=_FIX,
        where=f"{source}_batches",
        phrases_found=rows.share,
        phrases_expected=own.share,
        phrases=rows.count,
    )
    return failed(detail, draft)


def _beyond(found: Fit, size: int) -> Verdict:
    draft = error(
        "tokenizer-mismatch",
        f"the tokenizer gives id {found.highest}, but vocab_size is {size}",
        fix="use the tokenizer that the batches were made with, and its vocabulary size",
        where="tokenizer",
        id=found.highest,
        vocab_size=size,
    )
    return failed(f"it gives id {found.highest}, and vocab_size is {size}", draft)


def _undecodable(found: Fit, source: str) -> Verdict:
    draft = error(
        "tokenizer-mismatch",
        f"the tokenizer cannot decode the {source} batches, whose ids reach {found.highest_row}: {found.problem}",
        fix=_FIX,
        where=f"{source}_batches",
        id=found.highest_row,
    )
    return failed(found.problem, draft)
