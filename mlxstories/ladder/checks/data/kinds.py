"""Whether texts of all kinds are read throughout an epoch."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.data.kinds import kinds
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, passed, skipped, warning


@check(
    "texts of all kinds are read throughout",
    rung="data",
    causes=("constant-batches",),
    needs=("tokenizer", "train_texts"),
    unless=(
        "token-out-of-range",
        "tokenizer-mismatch",
        "high-unknown-rate",
        "constant-batches",
        "texts-never-seen",
    ),
    texts=Limit(32, "texts"),
    apart=Limit(0.08, "of the tokens, beyond chance"),
    deviations=Limit(10, "standard deviations beyond chance"),
)
def throughout(bench: Bench, limits: Gauges) -> Verdict:
    """Orders texts, spread over all, by the batch that first holds a stretch of them, and compares what the first half
    is made of with the other: how far the shares of their tokens are apart, beyond those of halves drawn at random.

    A model that reads one kind for long forgets the other, and is validated on both. A curriculum is such an order on
    purpose; hence a warning.
    Example: a buffer of which each file of one source fills the whole, and which is all that is shuffled.
    Fix: draw from all files at a time, or shuffle the texts before they are written to files.
    """
    found = kinds(bench)
    if found is None or limits.texts.below(found.texts):
        return skipped("no batch holds the texts, or they are few")
    detail = f"{found.apart:.1%} of the tokens apart, {found.deviations:.1f} standard deviations from chance"
    if not limits.apart.above(found.apart) or not limits.deviations.above(found.deviations):
        return passed(detail)
    return passed(
        detail,
        warning(
            "constant-batches",
            f"of {found.texts} texts, those that an epoch reads first are of another kind than the rest: the shares of "
            f"their tokens are {found.apart:.0%} further apart than of halves drawn at random ({found.deviations:.0f} "
            "standard deviations)",
            fix="shuffle texts of all kinds together, or draw each batch from all files",
            where="train_batches",
            apart=found.apart,
            deviations=found.deviations,
            unread=found.unread,
        ),
    )
