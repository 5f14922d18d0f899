"""Whether training rows have kept the white space of their texts."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.data.whitespace import whitespace
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped


@check(
    "white space is kept",
    rung="data",
    causes=("tokenizer-mismatch",),
    needs=("tokenizer", "train_texts"),
    unless=("token-out-of-range", "tokenizer-mismatch"),
    enough=Limit(20, "stretches of 32 characters"),
    spaces=Limit(0.05, "of the texts' characters are white space"),
    faithful=Limit(0.05, "of the tokenizer's own stretches"),
    lost=Limit(0.2, "of the rows' stretches"),
)
def kept(bench: Bench, limits: Gauges) -> Verdict:
    """Decodes training rows and looks stretches of 32 characters up in the texts, with one space for any white space
    between two words, and with none: where they stand in the second alone, words have run together.

    The model learns to write without the spaces and lines that the texts have. White space of another kind, or less of
    it, is sound.
    Example: `"".join(line.strip() for line in file)`; a loader that takes the newlines off.
    Fix: put back what parted the lines, `"\\n".join(...)`.
    """
    found = whitespace(bench)
    if found is None or limits.enough.below(found.count) or limits.spaces.below(found.spaces):
        return skipped("rows too short to compare, or not to be decoded, or texts without white space")
    if limits.faithful.above(found.own):
        return skipped("the tokenizer does not give white space back as it is")
    detail = f"{found.lost:.0%} of {found.count} stretches have lost some"
    if not limits.lost.above(found.lost):
        return passed(detail)
    return failed(
        detail,
        error(
            "tokenizer-mismatch",
            f"{found.lost:.0%} of the training rows' stretches of 32 characters are found in train_texts only once "
            f"all white space is removed, where {found.own:.0%} of the tokenizer's own are: on the way into the rows "
            "words or lines have run together",
            fix="put back the separator between lines, or texts, where they are joined",
            where="train_batches",
            lost=found.lost,
            stretches=found.count,
        ),
    )
