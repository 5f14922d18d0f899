"""Whether training ever sees its texts."""

from __future__ import annotations

import numpy as np

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.data.coverage import Coverage, coverage, searched
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, skipped, warning


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
    """Looks for stretches of 12 tokens, spread over the training texts, in the batches of two epochs.

    What reaches no batch teaches nothing: a model that goes round a tenth of its texts learns that tenth by heart.
    Example: a loader that takes the place where a run was resumed for the start of every epoch; a collate that keeps
    one row of each batch.
    Fix: count the tokens of an epoch, and compare them with those of the texts.
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


@check(
    "short texts reach a batch",
    rung="data",
    causes=("texts-never-seen",),
    needs=("tokenizer", "train_texts"),
    unless=(
        "token-out-of-range",
        "tokenizer-mismatch",
        "high-unknown-rate",
        "constant-batches",
        "texts-never-seen",
    ),
    whole=Limit(0.8, "of a text's stretches"),
    missing=Limit(0.1, "of the texts"),
    fewest=Limit(16, "texts"),
    parted=Limit(0.99, "of the pairs"),
)
def short_texts(bench: Bench, limits: Gauges) -> Verdict:
    """Compares the lengths of the texts that stand in the batches of two epochs, by most of their stretches of 12
    tokens, with those of the others: how often, of one of each, the one that is missing is the shorter.

    A text that the end of a row cuts, or that is left out for its length or by chance, is not shorter than the others.
    Where it is the short ones that are missing, and they alone, a loader drops them.
    Example: `range(0, len(ids) - context, context)` for each text: one that is shorter than a row yields no window.
    Fix: pad short texts, or pack several into a row.
    """
    found = searched(bench)
    if found is None:
        return skipped("epochs were not read to the end, or no text is long enough")
    here = np.array([not limits.whole.below(share) for share in found.shares])
    sizes, gone = found.sizes[here], found.sizes[~here]
    detail = f"{len(gone)} of {len(here)} texts are missing"
    few = limits.fewest.below(min(len(sizes), len(gone)))
    if few or limits.missing.below(len(gone) / len(here)):
        return passed(detail)
    pairs = gone[:, None] - sizes
    shorter = float(((pairs < 0) + (pairs == 0) / 2).mean())
    if limits.parted.below(shorter):
        return passed(f"{detail}, the shorter in {shorter:.0%} of the pairs")
    return passed(detail, _dropped(sizes, gone))


def _dropped(sizes: np.ndarray, gone: np.ndarray) -> Draft:
    """The warning, of the lengths of the texts that stand in a batch and of those that do not."""
    texts, share = len(sizes) + len(gone), gone.sum() / (sizes.sum() + gone.sum())
    return warning(
        "texts-never-seen",
        f"{len(gone)} of {texts} training texts looked at, {share:.0%} of their tokens, are missing from two epochs, "
        f"and these are the short ones: of at most {gone.max()} tokens, the others of at least {sizes.min()}",
        fix="pad short texts, or pack several into a row; if they are left out on purpose, leave them out of "
        "train_texts too",
        where="train_batches",
        texts=texts,
        missing=len(gone),
        longest_missing=int(gone.max()),
        shortest_present=int(sizes.min()),
        share_of_tokens=float(share),
    )
