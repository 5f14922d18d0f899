"""Findings from a recovered loss formula."""

from __future__ import annotations

import math

from mlxstories.ladder.bench.objective import Objective
from mlxstories.ladder.verdict import Draft, error, note, warning

_SMOOTHED = 0.005


def judge_objective(found: Objective, where: str, *, pads: bool, size: int) -> list[Draft]:
    """What is wrong with a recovered formula; ``pads`` where batches hold padding, ``size`` of the vocabulary."""
    judges = (
        _sign(found, where),
        _softmax(found, where, size),
        _shift(found, where),
        _mask(found, where, pads),
    )
    return [draft for draft in (*judges, _smoothing(found, where)) if draft]


def _sign(found: Objective, where: str) -> Draft | None:
    if found.sign > 0:
        return None
    return error(
        "loss-sign",
        f"the {where} is minus the cross-entropy: minimising it makes the right tokens ever less likely",
        fix="return the mean of -log p, without the extra minus",
        where=where,
        factor=-1,
    )


def _softmax(found: Objective, where: str, size: int) -> Draft | None:
    if found.softmaxes == 1:
        return None
    lowest = math.log(math.e + size - 1) - 1
    return error(
        "double-softmax",
        f"the {where} applies softmax to the logits before a cross-entropy that applies it again: "
        f"it can never fall below {lowest:.2f} nats (ln V = {math.log(size):.2f}) and its gradients are tiny",
        fix="hand the raw logits to the cross-entropy",
        where=where,
        lowest_reachable=lowest,
    )


def _shift(found: Objective, where: str) -> Draft | None:
    if not found.shift:
        return None
    return error(
        "targets-mismatched",
        f"the {where} shifts the targets by {found.shift:+d} against the logits although the batches already "
        f"are shifted: the model learns the token {found.shift + 1} places on",
        fix="compare logits[:, t] with targets[:, t]",
        where=where,
        shift=found.shift,
    )


def _mask(found: Objective, where: str, pads: bool) -> Draft | None:
    if found.masked:
        return None
    return (error if pads else warning)(
        "padding-in-loss",
        f"the {where} counts masked cells as real tokens"
        + ("" if pads else ", which these batches, having no padding, do not show yet"),
        fix="multiply the losses by batch.mask and divide by its sum",
        where=where,
        reduction=found.reduction,
    )


def _smoothing(found: Objective, where: str) -> Draft | None:
    if found.smoothing <= _SMOOTHED:
        return None
    return note(
        "smoothed-validation-loss",
        f"the training {where} smooths labels by {found.smoothing:.2g}: it is not comparable with a validation "
        "loss, which must not",
        fix="report the unsmoothed loss",
        where=where,
        label_smoothing=found.smoothing,
    )
