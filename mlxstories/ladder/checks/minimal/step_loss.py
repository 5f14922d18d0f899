"""Whether the loss that the step returns is the cross-entropy of the model before it."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.epochs import train_epoch
from mlxstories.ladder.bench.loss.objective import loss_formula
from mlxstories.ladder.bench.step.step_loss import step_loss
from mlxstories.ladder.checks.init.loss_formula import SMOOTHED, formula_verdict, judge_objective
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Draft, Verdict, skipped, warning


@check(
    "the step's loss",
    rung="minimal",
    causes=(
        "loss-sign",
        "double-softmax",
        "targets-mismatched",
        "padding-in-loss",
        "smoothed-validation-loss",
        "wrong-loss",
        "wrong-normalisation",
    ),
    needs=("train_step",),
    unless=(
        "not-finite",
        "no-update",
        "loss-sign",
        "double-softmax",
        "targets-mismatched",
        "wrong-loss",
        "stale-computation",
        "gradient-mismatch",
    ),
    smoothed=SMOOTHED,
)
def returned_loss(bench: Bench, limits: Gauges) -> Verdict:
    """Fits what the step returns, on random targets and always the same weights, to our own cross-entropy.

    A step of one's own may hold a loss of its own, which no check of the subject's `loss` sees.

    Example: a step that computes softmax and then `nn.losses.cross_entropy`, or forgets the mask.

    Fix: return the mean of -log p over the real tokens, from raw logits.
    """
    found = step_loss(bench)
    if found.random:
        return skipped("dropout hides its formula")
    if found.objective is None:
        return skipped("its formula was not recognised")
    pads, size = train_epoch(bench).padded, bench.subject.vocab_size
    drafts = judge_objective(found.objective, "train_step", pads=pads, size=size, smoothed=limits.smoothed)
    if found.objective.reduction == "mean of rows" and pads and _mean_of_tokens(bench):
        drafts.append(_micro_batches())
    return formula_verdict(found.objective, drafts)


def _mean_of_tokens(bench: Bench) -> bool:
    formula = loss_formula(bench)
    return bench.subject.loss is None or (formula is not None and formula.reduction == "mean")


def _micro_batches() -> Draft:
    return warning(
        "wrong-normalisation",
        "the loss is a mean over tokens, and the step's a mean of its micro-batches' means: tokens of short rows weigh "
        "more, and the step's loss is not that of the whole batch",
        fix="add up the micro-batches' sums of losses and gradients, and divide once by the tokens of the whole batch",
        where="train_step",
    )
