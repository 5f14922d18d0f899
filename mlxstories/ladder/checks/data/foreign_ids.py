"""Whether what is asked for is what texts are made of."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.data.foreign_ids import foreign
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped


@check(
    "targets are what texts are made of",
    rung="data",
    causes=("tokenizer-mismatch",),
    needs=("tokenizer", "train_texts"),
    unless=("token-out-of-range", "tokenizer-mismatch", "padding-in-loss", "high-unknown-rate"),
    share=Limit(0.3, "of the targets that count"),
)
def of_texts(bench: Bench, limits: Gauges) -> Verdict:
    """Encodes a sample of the texts and looks for an id among the targets that none of them has.

    Marks of beginning, end and gaps are such ids, and rare. One that is a third of all that is learned is none: where
    it is easily foretold, the loss looks far better than it is.
    Example: ids written as `uint32` and read with `np.memmap(path, dtype=np.uint16)`: every second one is 0.
    Fix: store the type of the numbers beside them, and read them as what they were written.
    """
    found = foreign(bench)
    if found is None:
        return skipped("too few tokens to say what texts are made of")
    detail = f"an id that no text has is {found.share:.0%} of the targets"
    if not limits.share.above(found.share):
        return passed(detail)
    return failed(
        detail,
        error(
            "tokenizer-mismatch",
            f"{found.share:.0%} of the targets that count are id {found.token}, which the tokenizer gives for none of "
            "the texts: the rows are not what it encoded",
            fix="read ids with the type that they were written in, and pass the tokenizer that made them",
            where="train_batches",
            token=found.token,
            share=found.share,
        ),
    )
