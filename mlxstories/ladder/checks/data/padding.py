"""Whether padding counts as text."""

from __future__ import annotations

from collections.abc import Iterable

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.data.rows import Filler, fillers
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed

_LIMITS = {
    "share": Limit(0.01, "of the real cells"),
    "rows": Limit(0.1, "of the rows"),
    "elsewhere": Limit(0.2, "repeats elsewhere a cell filled"),
}


@check(
    "padding is masked",
    rung="data",
    causes=("padding-in-loss",),
    unless=("token-out-of-range",),
    quick=True,
    **_LIMITS,
)
def train_padding(bench: Bench, limits: Gauges) -> Verdict:
    """Looks for a token that fills the ends (or beginnings) of rows in runs, is repeated nowhere else, and that the
    mask counts as real.

    Padding is trivial to predict: loss and accuracy look better than they are, and the gradient learns to pad.
    Example: `mask=mx.ones_like(inputs)`, or no mask at all, over rows padded to one length.
    Fix: set the mask to 0 after the end of each story.
    """
    found = padding_of(fillers(bench)["train_batches"], limits)
    if found is None:
        return passed()
    draft = error(
        "padding-in-loss",
        f"the mask counts {found.cells} padding cells (runs of id {found.token}) as real, "
        f"{found.share:.1%} of all it counts",
        fix="set the mask to 0 after the end of each story",
        where="train_batches",
        **_evidence(found),
    )
    return failed("", draft)


@check(
    "padding is masked in validation",
    rung="data",
    causes=("padding-in-accuracy",),
    needs=("val_batches",),
    unless=("token-out-of-range", "padding-in-loss"),
    quick=True,
    **_LIMITS,
)
def val_padding(bench: Bench, limits: Gauges) -> Verdict:
    """Looks in the validation batches for padding that the mask counts as real.

    Every padding cell predicted is a hit: accuracy rises with the length of the padding.
    Example: a mask made by the training loader alone.
    Fix: set the mask to 0 after the end of each story in validation as in training.
    """
    found = padding_of(fillers(bench)["val_batches"], limits)
    if found is None:
        return passed()
    draft = error(
        "padding-in-accuracy",
        f"the validation mask counts {found.cells} padding cells (runs of id {found.token}) as real, "
        f"{found.share:.1%} of all",
        fix="set the mask to 0 after the end of each story in validation as in training",
        where="val_batches",
        **_evidence(found),
    )
    return failed("", draft)


def padding_of(found: Iterable[Filler], limits: Gauges) -> Filler | None:
    """The first of these tokens that is padding."""
    for filler in found:
        fills = not limits.share.below(filler.share) and not limits.rows.below(filler.rows)
        if fills and not limits.elsewhere.above(filler.elsewhere):
            return filler
    return None


def _evidence(found: Filler) -> dict:
    return {
        "padding_id": found.token,
        "share_of_real_cells": found.share,
        "share_of_rows": found.rows,
    }
