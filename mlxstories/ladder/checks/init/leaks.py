"""Whether a row's logits depend on what they must not see: other rows of the batch, and later tokens."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.dependence import Dependence, dependence_matrix, views
from mlxstories.ladder.limits import Gauge, Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped

LIMITS = {
    "rounding": Limit(2e-5, "of the change"),
    "coarse_rounding": Limit(2e-2, "of the change, with weights of 16 bits"),
}
"""Limits that `rows_verdict` and `future_verdict` need: relative changes that rounding alone may cause."""

Views = list[tuple[str, Dependence]]

_NOISE = "the same input gives different logits each time"


@check(
    "rows are independent",
    rung="init",
    causes=("batch-leak",),
    unless=("token-out-of-range", "not-finite", "not-repeatable"),
    quick=True,
    **LIMITS,
)
def rows(bench: Bench, limits: Gauges) -> Verdict:
    """Changes the other rows of a batch and looks whether a row's logits move.

    What one row computes must not depend on the other rows: where it does, the model learns from rows that it will
    not have in validation or when it writes, and numbers depend on the batch size.
    Example: `nn.BatchNorm` over rows, or `x.reshape(T, B, D)` where `x.transpose(1, 0, 2)` was meant.
    Fix: normalise and attend within a row.
    """
    return rows_verdict(views(bench), limits)


@check(
    "sees no later token",
    rung="init",
    causes=("future-leak",),
    unless=("token-out-of-range", "not-finite", "not-repeatable", "batch-leak"),
    quick=True,
    **LIMITS,
)
def future(bench: Bench, limits: Gauges) -> Verdict:
    """Changes the end of a row at several places and looks whether logits before it move, as the model is, with
    noise on its weights (zero-initialised ones hide leaks) and in training mode.

    A model that sees what it has to predict learns to copy it: the loss falls wonderfully, and what it writes is
    worthless.
    Example: attention without a causal mask, or a mask that lets each position see the next one.
    Fix: `mask="causal"`, convolutions padded on the left only, no mean or norm over later positions.
    """
    verdict = future_verdict(views(bench), limits)
    if bench.width is None:
        verdict.figures["causality"] = dependence_matrix(bench, bench.noisy(0))
    return verdict


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
            f"when only other rows of the batch change, a row's logits change too, {_share(worst.rows)} as theirs "
            f"({name})",
            fix="normalise and attend within a row: no BatchNorm, and no softmax, reshape or mean that mixes B and T",
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
            f"when only the tokens from position {changed} on change, the logits at position {reader} change too, "
            f"{_share(worst.future)} as those from {changed} on ({name}): the model sees what it has to predict",
            fix="add nn.MultiHeadAttention.create_additive_causal_mask(T) to the scores before a softmax over their "
            "last axis, or give mask='causal'; swap axes by transpose, never by reshape; pad convolutions on the left "
            "only, and pool or normalise over no later position",
            where="model",
            relative_change=worst.future,
            reader=reader,
            first_changed=changed,
            tolerance=tolerance.value,
        ),
    )


def _tolerance(view: Dependence, limits: Gauges) -> Gauge:
    return limits.rounding if view.full_precision else limits.coarse_rounding


def _share(value: float) -> str:
    percent = f"{value:.0%}"
    return f"{value:.1e} times as much" if percent == "0%" else f"{percent} as much"
