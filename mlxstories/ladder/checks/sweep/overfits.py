"""What is left where no other rate lets the model memorise: training breaks down, or the model cannot fit."""

from __future__ import annotations

import math

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.samples import minimal_batch
from mlxstories.ladder.bench.training.memorising import Memorising, memorising, row_entropy, start_loss
from mlxstories.ladder.checks.sweep.rate_evidence import RATE_LIMITS, Rates, judge_rates
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import ANY, check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, warning


@check("stays finite at any rate", rung="sweep", causes=("not-finite",), unless=ANY, **RATE_LIMITS)
def stays_finite(bench: Bench, limits: Gauges) -> Verdict:
    """Where stories were not memorised: does training turn NaN at the subject's own rate, and do smaller ones not
    help?

    Then it is not the rate that breaks it.

    Example: a backward pass in float16, whose range ends at 65 504.

    Fix: look for a log of 0, a division by 0 or an overflow in the backward pass.
    """
    if memorising(bench).learned:
        return passed()
    rates = judge_rates(bench, limits)
    if rates.raise_helps or rates.lower_helps or math.isfinite(rates.by_scale[1.0][0]):
        return passed()
    return failed(
        f"at none of those tried, within {rates.steps} steps",
        error(
            "not-finite",
            f"training turns not finite within {rates.steps} steps, at smaller learning rates too",
            fix="look for a log of 0, a division by 0 or a float16 overflow in the backward pass",
            where="train_step",
            **rates.evidence,
        ),
    )


@check(
    "some rate memorises",
    rung="sweep",
    causes=("cannot-overfit",),
    unless=ANY,
    far=Limit(0.1, "nats below word frequencies"),
    stalled=Limit(0.02, "of the first loss, in the second half"),
    **RATE_LIMITS,
)
def overfits(bench: Bench, limits: Gauges) -> Verdict:
    """Where stories were not memorised and nothing else was found: the model cannot fit them at any rate.

    It is a warning where the loss keeps falling below that of word frequencies.

    Example: targets that do not follow from the inputs; heavy dropout; logits capped; a width of 2.

    Fix: look for what keeps the model from fitting.
    """
    own = memorising(bench)
    if own.learned:
        return passed()
    rates = judge_rates(bench, limits)
    if rates.raise_helps or rates.lower_helps:
        return passed("another does")
    losses = [loss for loss, _ in rates.by_scale.values()] + [own.last]
    least = min((loss for loss in losses if math.isfinite(loss)), default=math.inf)
    slow = limits.far.above(row_entropy(bench) - least) and not _stalls(bench, own, limits)
    detail = f"{least:.2f} nats are left"
    return failed(detail, _draft(warning if slow else error, bench, rates, least, slow=slow))


def _stalls(bench: Bench, own: Memorising, limits: Gauges) -> bool:
    """Whether the second half of memorising gained next to nothing."""
    middle = len(own.trial.losses) / 2
    half = [loss for step, loss, _ in own.trial.points if step <= middle]
    return bool(half) and limits.stalled.below((half[-1] - own.last) / start_loss(bench))


def _draft(severity, bench: Bench, rates: Rates, least: float, *, slow: bool) -> Draft:
    accuracy = max(memorising(bench).points[-1][2], rates.by_scale[rates.best][1])
    rest = (
        ", though the loss keeps falling"
        if slow
        else f"; their word frequencies alone leave {row_entropy(bench):.2f}"
    )
    return severity(
        "cannot-overfit",
        f"{minimal_batch(bench).shape[0]} rows cannot be memorised: the best of {len(rates.by_scale)} learning rates "
        f"leaves {least:.2f} of {start_loss(bench):.2f} nats and gets {accuracy:.1%} of the tokens right"
        + rest,
        fix="look for what keeps the model from fitting: targets that do not follow from the inputs, heavy "
        "dropout, a part cut off from the gradient, too little capacity",
        where="model",
        **rates.evidence,
    )
