"""Whether a row's logits depend on what they must not see: other rows of the batch, and later tokens."""

from __future__ import annotations

from mlxstories.ladder.bench.dependence import Dependence
from mlxstories.ladder.limits import Gauge, Gauges, Limit
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped

LIMITS = {
    "rounding": Limit(2e-5, "of the change"),
    "coarse_rounding": Limit(2e-2, "of the change, with weights of 16 bits"),
}
"""Limits that `rows_verdict` and `future_verdict` need: relative changes that rounding alone may cause."""

Views = list[tuple[str, Dependence]]

_NOISE = "the same input gives different logits each time"


def rows_verdict(views: Views, limits: Gauges) -> Verdict:
    """What the views of a model, by name, say of other rows; ``limits`` holds `LIMITS`."""
    usable = [(name, view) for name, view in views if view.repeatable]
    if not usable:
        return skipped(_NOISE)
    name, worst = max(usable, key=lambda item: item[1].rows)
    tolerance, detail = _tolerance(worst, limits), f"{worst.rows:.1e} relative change"
    if not tolerance.above(worst.rows):
        return passed(detail)
    return failed(
        detail,
        error(
            "batch-leak",
            f"a row's logits move by {_share(worst.rows)} when only other rows of the batch change ({name})",
            fix="normalise and attend within a row: no BatchNorm, no reshape or mean that mixes B and T",
            where="model",
            relative_change=worst.rows,
            tolerance=tolerance.value,
        ),
    )


def future_verdict(views: Views, limits: Gauges) -> Verdict:
    """What the views of a model, by name, say of later tokens; ``limits`` holds `LIMITS`."""
    usable = [(name, view) for name, view in views if view.repeatable]
    if not usable:
        return skipped(_NOISE)
    name, worst = max(usable, key=lambda item: item[1].future)
    tolerance, detail = _tolerance(worst, limits), f"{worst.future:.1e} relative change"
    if not tolerance.above(worst.future):
        return passed(detail)
    reader, changed = worst.future_at
    return failed(
        detail,
        error(
            "future-leak",
            f"the logits at position {reader} move by {_share(worst.future)} when only tokens from position "
            f"{changed} on change ({name}): the model sees what it has to predict",
            fix="mask attention with nn.MultiHeadAttention.create_additive_causal_mask(T) or mask='causal', pad "
            "convolutions on the left only, and pool or normalise over no later position",
            where="model",
            relative_change=worst.future,
            reader=reader,
            first_changed=changed,
            tolerance=tolerance.value,
        ),
    )


def _tolerance(view: Dependence, limits: Gauges) -> Gauge:
    # TRANSITIONAL
    return limits.rounding if view.tolerance < limits.coarse_rounding.value else limits.coarse_rounding


def _share(value: float) -> str:
    percent = f"{value:.0%}"
    return f"{value:.1e} of the change" if percent == "0%" else f"{percent} of the change"
