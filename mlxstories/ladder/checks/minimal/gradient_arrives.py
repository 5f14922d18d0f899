"""Whether what reaches the optimiser is the gradient of the loss."""

from __future__ import annotations

import numpy as np

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.loss.objective import loss_formula
from mlxstories.ladder.bench.step.gradient_arrival import (
    Arrival,
    GradientArrival,
    gradient_arrival,
    loss_factors,
)
from mlxstories.ladder.bench.step.received_gradient import variation
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, skipped, warning


@check(
    "the loss's gradient reaches the optimiser",
    rung="minimal",
    causes=("gradient-mismatch", "clipping-too-tight"),
    needs=("train_step",),
    unless=("not-finite", "no-update", "loss-sign", "double-softmax", "rows-ignored", "stale-computation"),
    cosine=Limit(0.15, "cosine; steps orthogonalised by hand keep 0.37"),
    signs=Limit(0.6, "of the gradient, by squares"),
    loss=Limit(0.02, "relative difference"),
    uphill=Limit(-0.15, "cosine"),
    factor=Limit(1.3, "times the gradient's length"),
    spread=Limit(0.02, "of the mean"),
    again=Limit(1.5, "times the first"),
    left=Limit(1e-3, "of the gradient's length"),
    same=Limit(1e-3, "of the mean"),
)
def arrives(bench: Bench, limits: Gauges) -> Verdict:
    """Reads the gradients on their way into the optimiser and compares them with those of the loss, dropout off, on
    the same batch: their direction tensor by tensor, and their length. Clips, weight decay added to the gradient,
    accumulation and tensors left out are sound and not reported.

    An optimiser takes any gradient: one of another model, or none at all, moves the weights just as far.

    Example: `nn.value_and_grad(model, ...)` of a model that was built again since; gradients summed over
    micro-batches and never divided, or divided twice.

    Fix: take the gradient of the loss that is reported, with respect to the model that is updated, and divide what
    is summed by how many there were.
    """
    found = gradient_arrival(bench)
    if isinstance(found, str):
        return skipped(found)
    cosine = float(np.median([step.direction for step in found.steps]))
    detail = f"cosine {cosine:.2f}"
    draft = _another_direction(bench, found, cosine, limits) or _another_length(bench, found, limits)
    draft = draft or _next_to_nothing(found, limits) or _too_short(found, limits)
    if draft is None:
        return passed(detail)
    return (failed if draft.severity == "error" else passed)(detail, draft)


def _another_direction(bench: Bench, found: GradientArrival, cosine: float, limits: Gauges) -> Draft | None:
    steps = found.steps
    away = all(limits.cosine.below(s.direction) and limits.signs.below(s.signs) for s in steps)
    if not away or all(limits.uphill.below(s.direction) for s in steps):
        return None
    evidence = {"cosine": cosine, "norm_received": steps[0].norm, "loss": steps[0].own}
    if not any(s.norm for s in steps):
        return error(
            "gradient-mismatch",
            "every gradient that reaches the optimiser is 0 although the loss has one: what moves the weights is "
            "weight decay alone",
            fix="call the model inside the function that is given to nn.value_and_grad, with the model that it is "
            "given; what is computed outside counts as a constant",
            where="train_step",
            **evidence,
        )
    foreign = [_foreign(step, limits) for step in steps]
    if bench.subject.loss is None and any(foreign):
        return None  # the step minimises something else, which nobody told
    told = (
        f"; the loss it returns, {steps[0].returned:.3f}, is not this model's either ({steps[0].own:.3f}), as with "
        "another model's or other weights"
        if all(foreign)
        else ""
    )
    return error(
        "gradient-mismatch",
        f"what reaches the optimiser has nothing to do with the gradient of the loss on the same batch: their "
        f"cosine is {cosine:.2f}{told}",
        fix="give nn.value_and_grad the very model that is updated, and call it anew after the model is rebuilt",
        where="train_step",
        returned=steps[0].returned,
        **evidence,
    )


def _foreign(step: Arrival, limits: Gauges) -> bool:
    """Whether the loss that the step returns is not the subject's of this model."""
    return limits.loss.above(abs(step.returned - step.own) / max(abs(step.own), limits.loss.value))


def _another_length(bench: Bench, found: GradientArrival, limits: Gauges) -> Draft | None:
    steps = found.steps
    ratios = [step.ratio for step in steps]
    ratio = float(np.mean(ratios))
    severity = error if found.heeds_size else warning
    if all(limits.again.above(step.again) for step in steps):
        return error(  # of whatever optimiser: old gradients outweigh the new one
            "gradient-mismatch",
            f"the second update on the same batch and weights receives {steps[0].again:.1f} times the gradient of the "
            "first: gradients are summed up and never reset",
            fix="start each update's sum of gradients at 0",
            where="train_step",
            again=steps[0].again,
        )
    if limits.spread.above(np.std(ratios) / max(ratio, limits.spread.value)) or not limits.factor.above(
        ratio
    ):
        return None
    if _of_a_mean(bench, ratio, limits):
        return None
    return _too_long(bench, steps[0], ratio, severity, limits)


def _of_a_mean(bench: Bench, ratio: float, limits: Gauges) -> bool:
    """Whether each part's loss is divided by their number before the gradients are added: what arrives is then no
    longer than the gradient of the mean per token, of which the loss is a share."""
    formula = loss_formula(bench)
    return (
        formula is not None
        and formula.reduction == "mean"
        and not limits.spread.above(ratio * formula.factor - 1)
    )


def _too_long(bench: Bench, first: Arrival, ratio: float, severity, limits: Gauges) -> Draft | None:
    factors = loss_factors(bench)
    # A loss that is a sum over rows or tokens grows with the batch, and is a matter of taste.
    grows = factors is None or limits.spread.above(abs(factors[1] / factors[0] - 1) if factors[0] else np.inf)
    accumulated = first.calls > 1 and not limits.spread.above(abs(ratio / first.calls - 1))
    pieces = f"the {first.calls} calls that it collects" if accumulated else "micro-batches or devices"
    reported = f"; the loss it returns is {factors[0]:.3g} times as large" if factors else ""
    return (warning if grows and not accumulated else severity)(
        "gradient-mismatch",
        f"what reaches the optimiser is {ratio:.3g} times the gradient of the loss on the same batch{reported}: as "
        f"when the gradients of {pieces} are added and not averaged",
        fix="divide the sum of gradients, and of losses, by their number",
        where="train_step",
        ratio=ratio,
        calls=first.calls,
    )


def _next_to_nothing(found: GradientArrival, limits: Gauges) -> Draft | None:
    norms, ratio = [step.norm for step in found.steps], found.steps[0].ratio
    if not found.heeds_size or not ratio or not limits.left.below(ratio):
        return None
    if limits.spread.above(variation(norms)):
        return None
    return error(
        "clipping-too-tight",
        f"every gradient reaches the optimiser with a norm of {norms[0]:.2g}, {ratio:.1e} of its length, and this "
        "optimiser's step depends on the length: gradients are clipped at next to nothing, or while still scaled up",
        fix="clip at a norm of about 1; if the loss is scaled, divide the gradients by the scale first",
        where="train_step",
        norm=norms[0],
        share_left=ratio,
    )


def _too_short(found: GradientArrival, limits: Gauges) -> Draft | None:
    """The same share of each gradient, which no clip leaves, while the loss that is told is the subject's whole."""
    steps = found.steps
    ratio = float(np.mean([step.ratio for step in steps]))
    if not found.heeds_size or not ratio or not limits.factor.above(1 / ratio):
        return None
    if limits.same.above(variation([s.ratio for s in steps])):
        return None
    if limits.same.below(variation([s.norm for s in steps])):
        return None
    if any(_foreign(step, limits) for step in steps):
        return None  # another loss than the subject's, which may well be a share of it
    return error(
        "gradient-mismatch",
        f"what reaches the optimiser is {ratio:.3g} times the gradient of the loss on every batch, though the loss "
        "that the step returns is whole, and this optimiser's step depends on the length: as when a mean of gradients "
        "is divided once more by their number",
        fix="divide the sum of gradients once, by their number; a smaller step is the learning rate's matter",
        where="train_step",
        ratio=ratio,
    )
