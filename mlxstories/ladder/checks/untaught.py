"""Whether what validation asks is among what training is shown."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.untaught import untaught
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped


@check(
    "what validation asks reaches a batch",
    rung="data",
    causes=("texts-never-seen",),
    needs=("tokenizer", "train_texts", "val_batches"),
    unless=(
        *("token-out-of-range", "tokenizer-mismatch", "high-unknown-rate", "constant-batches"),
        "texts-never-seen",
    ),
    withheld=Limit(0.04, "of validation's stretches"),
    stays=Limit(0.9, "of what the first epoch withholds, withheld by the second too"),
    enough=Limit(500, "stretches"),
)
def asked_is_taught(bench: Bench, limits: Gauges) -> Verdict:
    """**What it does.** Takes stretches of six tokens of validation's rows that stand in the training texts, outside of
    what validation itself was cut from, and looks for them in the batches of two epochs.

    **Why it matters.** What the texts could teach and no batch holds is lost, and validation shows by how much.

    **Example.** A loader that reads the first of two sources; one that keeps of each text what fits into one row, or
    drops the short ones.

    **Fix.** Count the texts and tokens of an epoch by source, and compare them with what was meant to be read.
    """
    found = untaught(bench)
    if found is None or limits.enough.below(found.stretches):
        return skipped("epochs were not read to the end, or validation is small")
    detail = f"{found.both:.1%} of validation's stretches are in the texts and in no batch"
    if not limits.withheld.above(found.both) or limits.stays.below(found.both / found.first):
        return passed(detail)
    return failed(
        detail,
        error(
            "texts-never-seen",
            f"{found.both:.1%} of the stretches of six tokens that validation asks for stand in the training texts and "
            f"in no batch of two epochs ({found.first:.1%} in none of the first): part of the texts is never read, and "
            "it is a part that validation is about",
            fix="compare the tokens of an epoch, source by source and text by text, with those of the texts: is a "
            "source, a kind of text, or the rest of each text left out?",
            where="train_batches",
            first=found.first,
            both=found.both,
            stretches=found.stretches,
        ),
    )
