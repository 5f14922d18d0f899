"""Whether the loss is the mean cross-entropy of the real tokens, and nothing else."""

from __future__ import annotations

import math

from mlxstories.findings import ERROR
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.epochs import train_epoch
from mlxstories.ladder.bench.loss.objective import Objective, floor_of_double, loss_formula
from mlxstories.ladder.limits import Gauge, Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, note, passed, skipped, warning

FORMULA_CAUSES = (
    "loss-sign",
    "double-softmax",
    "targets-mismatched",
    "padding-in-loss",
    "smoothed-validation-loss",
    "wrong-loss",
)
"""Codes that `judge_objective` can name."""
SMOOTHED = Limit(0.5, "share of the target's probability that smoothing gives to all tokens")
"""Above it most of what a loss asks for is no target."""
ADDED = Limit(0.03, "of ln V, whatever the logits are")
"""Above it the figure of a loss is clearly another one than what it minimises."""
WEIGHED = Limit(0.01, "between the weight of the cross-entropy and 1")
"""Above it another term was meant to count beside the cross-entropy."""


@check(
    "loss is the masked cross-entropy",
    rung="init",
    causes=FORMULA_CAUSES,
    unless=("token-out-of-range", "not-finite", "double-softmax"),
    quick=True,
    smoothed=SMOOTHED,
    added=ADDED,
)
def masked_cross_entropy(bench: Bench, limits: Gauges) -> Verdict:
    """## What it does
    Feeds the loss known logits, targets and masks, and finds the simplest formula that explains its values: sign,
    softmaxes, label smoothing, mask, a shift of the targets, a constant, a factor of logits that it makes itself.

    ## Why it is bad
    A loss that is not what it is taken for trains something else, and often looks better than it is.

    ## Example
        nn.losses.cross_entropy(model(batch.inputs), batch.targets).mean()      # the padding counts

    ## Fix
        (losses * batch.mask).sum() / batch.mask.sum()
    """
    if bench.subject.loss is None:
        return passed("the default")
    found = loss_formula(bench)
    if found is None:
        return skipped("its formula was not recognised")
    pads, size = train_epoch(bench).padded, bench.subject.vocab_size
    drafts = judge_objective(
        found, "loss", pads=pads, size=size, smoothed=limits.smoothed, added=limits.added
    )
    return formula_verdict(found, drafts)


def formula_verdict(found: Objective, drafts: list[Draft]) -> Verdict:
    """Failed where a draft is an error."""
    verdict = failed if any(draft.severity == ERROR for draft in drafts) else passed
    return verdict(str(found), *drafts)


def judge_objective(
    found: Objective,
    where: str,
    *,
    pads: bool,
    size: int,
    smoothed: Gauge | Limit = SMOOTHED,
    added: Gauge | Limit = ADDED,
) -> list[Draft]:
    """What is wrong with a recovered formula.

    Args:
        where: whose formula it is, ``loss`` or ``train_step``.
        pads: whether the training batches have padding.
        size: of the vocabulary.
        smoothed: the most that smoothing may take from the target.
        added: the largest constant that may be part of it.
    """
    drafts = (
        _sign(found, where),
        _softmaxes(found, where, size),
        _shift(found, where),
        _mask(found, where, pads),
        _smoothing(found, where, smoothed),
        _added(found, where, size, added),
        _other_logits(found, where),
    )
    return [draft for draft in drafts if draft is not None]


def _sign(found: Objective, where: str) -> Draft | None:
    if found.sign >= 0:
        return None
    return error(
        "loss-sign",
        f"the {where} is minus the cross-entropy: minimising it makes the right tokens ever less likely",
        fix="flip its sign: return the mean of -log p of the right tokens",
        where=where,
        factor=-1,
    )


def _softmaxes(found: Objective, where: str, size: int) -> Draft | None:
    if found.softmaxes <= 1:
        return None
    lowest = floor_of_double(size)
    return error(
        "double-softmax",
        f"the {where} applies softmax to the logits before a cross-entropy that applies it again: "
        f"it can never fall below {lowest:.2f} nats (ln V = {math.log(size):.2f}) and its gradients are tiny",
        fix="pass the raw logits to the cross-entropy",
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


def _smoothing(found: Objective, where: str, smoothed: Gauge | Limit) -> Draft | None:
    if found.smoothing <= 0:
        return None
    if smoothed.above(found.smoothing):
        return error(
            "wrong-loss",
            f"the training {where} asks for the target with a weight of {1 - found.smoothing:.2g}, and spreads "
            f"{found.smoothing:.2g} over all tokens: most of what is learnt is a flat distribution",
            fix="smooth by e: (1 - e) times the target's -log p, and e times the mean of all tokens'",
            where=where,
            label_smoothing=found.smoothing,
        )
    return note(
        "smoothed-validation-loss",
        f"the training {where} smooths labels by {found.smoothing:.2g}: it is not comparable with a validation "
        "loss, which must not",
        fix="report the unsmoothed loss",
        where=where,
        label_smoothing=found.smoothing,
    )


def _added(found: Objective, where: str, size: int, added: Gauge | Limit) -> Draft | None:
    if not added.above(abs(found.added) / math.log(size)):
        return None
    weighed = found.added > 0 and WEIGHED.above(abs(found.factor - 1))
    told = "a term of it asks for nothing" if weighed else "the figure is off by that"
    return (error if weighed else warning)(
        "wrong-loss",
        f"the {where} is {found.factor:.3g} times the cross-entropy {found.added:+.3g}, whatever the logits are: "
        f"{told}",
        fix="look for a term that no logit enters: a constant, or something behind a stop_gradient",
        where=where,
        factor=found.factor,
        added=found.added,
    )


def _other_logits(found: Objective, where: str) -> Draft | None:
    if found.times == 1:
        return None
    return error(
        "wrong-loss",
        f"the {where} makes the logits itself, and they are {found.times:.3g} times those that the model returns: what "
        "is trained is another distribution than the one that is validated and decoded from",
        fix="do with the logits of the loss what the model does after its output layer, such as a scale",
        where=where,
        times=found.times,
    )
