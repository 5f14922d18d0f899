"""Whether training ever sees its texts."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.coverage import Coverage, coverage
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped, warning


@check(
    "the texts reach a batch",
    rung="data",
    causes=("texts-never-seen",),
    needs=("tokenizer", "train_texts"),
    unless=("token-out-of-range", "tokenizer-mismatch", "high-unknown-rate", "constant-batches"),
    little=Limit(0.15, "of the stretches looked for"),
    gain=Limit(0.02, "of the stretches, more in the second epoch"),
    texts=Limit(0.5, "of the texts"),
    rows=Limit(2, "rows of a batch"),
)
def texts(bench: Bench, limits: Gauges) -> Verdict:
    """**What it does.** Looks for stretches of 12 tokens, spread over the training texts, in the batches of two
    epochs.

    **Why it matters.** What reaches no batch teaches nothing: a model that goes round a tenth of its texts learns
    that tenth by heart.

    **Example.** A loader that takes the place where a run was resumed for the start of every epoch; a collate that
    keeps one row of each batch.

    **Fix.** Count the tokens of an epoch, and compare them with those of the texts.
    """
    found = coverage(bench)
    if found is None:
        return skipped(
            "epochs were not read to the end, rows are very short, or no stretch of the texts was found"
        )
    detail = f"{found.both:.0%} in two epochs"
    if not limits.little.below(found.both):
        return passed(detail)
    stays = not limits.gain.above(found.both - found.first) and limits.texts.below(found.texts)
    certain = stays or limits.rows.below(found.rows)
    draft = (error if certain else warning)("texts-never-seen", **_finding(found, stays))
    return failed(detail, draft) if certain else passed(detail, draft)


def _finding(found: Coverage, stays: bool) -> dict:
    again = ", the same ones in both epochs" if stays else ""
    single = ", whose batches hold one row each" if found.rows == 1 else ""
    return {
        "message": f"an epoch{single} holds {found.first:.1%} of the training texts, two epochs "
        f"{found.both:.1%}{again}: the rest never reaches a batch",
        "fix": "let every epoch start at the beginning of the texts and end at their end, and let the collate keep "
        "every row of a batch",
        "where": "train_batches",
        "share_of_an_epoch": found.first,
        "share_of_two_epochs": found.both,
        "share_of_texts_touched": found.texts,
    }
