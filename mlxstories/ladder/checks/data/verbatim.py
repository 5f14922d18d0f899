"""Whether validation's texts are prepared as training's are."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.data.tokens import val_fit
from mlxstories.ladder.bench.data.verbatim import verbatim
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped


@check(
    "validation is prepared like training",
    rung="data",
    causes=("tokenizer-mismatch",),
    needs=("tokenizer", "train_texts", "val_batches", "val_texts"),
    unless=("token-out-of-range", "tokenizer-mismatch"),
    enough=Limit(20, "stretches of 32 characters"),
    lossless=Limit(0.5, "of what the tokenizer encoded and decoded"),
    faithful=Limit(0.8, "of training's stretches, relative to the tokenizer's own"),
    words=Limit(
        0.85, "of validation's phrases of four words, whatever their letters' case, relative to them"
    ),
    changed=Limit(0.6, "of validation's stretches, relative to the tokenizer's own"),
)
def prepared_alike(bench: Bench, limits: Gauges) -> Verdict:
    """Decodes rows of both and looks stretches of 32 characters up in the texts as they are: where training's stand
    there letter by letter, and validation's words do, its letters should, too.

    A model that learned texts as they are is measured on others: the figure says nothing about what it learned.
    Example: texts in small letters, without punctuation or newlines in validation alone.
    Fix: send both through one function.
    """
    found = verbatim(bench)
    if found is None or limits.enough.below(min(part.count for part in found)):
        return skipped("rows too short to compare, or not to be decoded, or texts of many million characters")
    if limits.lossless.below(min(part.own.share for part in found)):
        return skipped("the tokenizer does not give texts back as they are")
    train, val = found
    detail = f"{train.kept:.0%} of training's stretches are kept, {val.kept:.0%} of validation's"
    words = val_fit(bench)
    # Texts without spaces are one word each, and hold no phrase.
    if words is None or words.rows is None or not words.own.share:
        return skipped("validation cannot be told by its words")
    if limits.words.below(words.rows.share / words.own.share):
        return skipped("validation's words are not those of its texts, or in another order")
    if limits.faithful.below(train.kept) or not limits.changed.below(val.kept):
        return passed(detail)
    return failed(
        detail,
        error(
            "tokenizer-mismatch",
            f"{train.rows.share:.0%} of the training rows' stretches of 32 characters are in train_texts letter by "
            f"letter, but only {val.rows.share:.0%} of the validation rows' are in val_texts, where "
            f"{val.own.share:.0%} should be: the texts of validation are changed on the way",
            fix="prepare the texts of training and validation with one function: letters, punctuation, newlines",
            where="val_batches",
            train=train.kept,
            val=val.kept,
        ),
    )
