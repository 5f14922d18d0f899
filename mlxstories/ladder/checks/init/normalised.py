"""Whether the loss is divided by what counts."""

from __future__ import annotations

import numpy as np

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.loss.demands import uniform
from mlxstories.ladder.bench.loss.objective import loss_formula
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, skipped, warning


@check(
    "the loss counts tokens alike",
    rung="init",
    causes=("wrong-normalisation",),
    needs=("loss",),
    unless=(
        "token-out-of-range",
        "not-finite",
        "loss-sign",
        "double-softmax",
        "padding-in-loss",
        "wrong-loss",
    ),
    apart=Limit(0.02, "of ln V, between the subject's own batches"),
    share=Limit(0.01, "from the share of real cells"),
    exact=Limit(1e-4, "of ln V, from the real cells' share of cells and rows"),
    short=Limit(5e-3, "of ln V, at least, in the batch of the fewest cells"),
)
def normalised(bench: Bench, limits: Gauges) -> Verdict:
    """Gives the loss logits that are all 0 on batches of many and of few real cells. A mean is ln V on each of them; a
    sum grows with their number.

    A loss divided by all cells, padding too, is lower the more padding there is: what it says of two batches cannot
    be compared, and the longest rows set the size of the steps.
    Example: `(losses * mask).mean()`; `cross_entropy(logits, targets, weights=mask, reduction="mean")`, which in MLX
    divides by the number of cells.
    Fix: `(losses * mask).sum() / mask.sum()`.
    """
    found = uniform(bench)
    if found is None:
        return skipped("the loss needs more of a model than its logits")
    losses, shares = np.array(found.losses), np.array(found.shares)
    detail = "ln V times " + ", ".join(f"{value:.3g}" for value in losses)
    counts, rows = np.array(found.counts), np.array(found.rows)
    off = np.abs(losses - counts / (counts + rows)).max() if np.isfinite(losses).all() else np.inf
    if limits.exact.below(float(off)) and limits.short.above(1 - float(losses.min())):
        return passed(detail, _first_places(losses, counts, rows))
    if not np.isfinite(losses).all() or not limits.apart.above(float(np.ptp(losses))):
        formula = loss_formula(bench)
        unequal = (
            formula is not None
            and formula.reduction == "mean of rows"
            and limits.apart.above(float(np.ptp(shares)))
        )
        return passed(detail, _by_rows()) if unequal else passed(detail)
    if limits.share.above(float(np.abs(losses - shares).max())):
        return passed(detail)  # a sum, or something of its own
    return failed(
        detail,
        error(
            "wrong-normalisation",
            f"logits that are all 0 cost ln V a token, and the loss says {losses.min():.0%} to {losses.max():.0%} of "
            "it, which is the share of real cells in the batch: it is divided by all cells, padding included",
            fix="divide the sum of the real tokens' losses by mask.sum(); MLX's cross_entropy with weights and "
            'reduction="mean" divides by the number of cells',
            where="loss",
            lowest=float(losses.min()),
            highest=float(losses.max()),
        ),
    )


def _first_places(losses: np.ndarray, counts: np.ndarray, rows: np.ndarray) -> Draft:
    return warning(
        "wrong-normalisation",
        f"logits that are all 0 cost ln V a token, and the loss says {losses.min():.1%} to {losses.max():.1%} of it: "
        "the sum is divided by the targets that count plus one for each row, that is, by all tokens of the rows, "
        "although nothing predicts the first one",
        fix="count the targets, after the shift: mask[:, 1:].sum() where tokens, not targets, are masked",
        where="loss",
        cells=int(counts[0]),
        rows=int(rows[0]),
        lowest=float(losses.min()),
    )


def _by_rows() -> Draft:
    return warning(
        "wrong-normalisation",
        "the loss is a mean of each row's mean: tokens of short rows weigh more than those of long ones",
        fix="divide the sum of the real tokens' losses by their number, once",
        where="loss",
    )
