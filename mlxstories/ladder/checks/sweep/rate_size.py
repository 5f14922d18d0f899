"""Whether another learning rate, or Adam's bias correction, would let the model memorise."""

from __future__ import annotations

import math

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.loss.sum_over_tokens import sum_over_tokens
from mlxstories.ladder.bench.step.adam import uncorrected_betas, uncorrected_warmup
from mlxstories.ladder.bench.training.memorising import memorised, memorising, start_loss
from mlxstories.ladder.bench.training.rates import corrected_run, divided_run, plain_run
from mlxstories.ladder.checks.sweep.rate_evidence import (
    RATE_LIMITS,
    Rates,
    judge_rates,
    rate_words,
    without_steps,
)
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import ANY, check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, warning


@check(
    "the rate is large enough",
    rung="sweep",
    causes=("learning-rate-too-small",),
    unless=ANY,
    crawl=Limit(0.12, "of the first loss, taken away by the whole minimal rung"),
    **RATE_LIMITS,
)
def large_enough(bench: Bench, limits: Gauges) -> Verdict:
    """Where stories were not memorised: does a larger rate do far better in as many steps?

    It is an error where the subject's own rate hardly moves the loss at all.

    Example: `AdamW(1e-6)`; SGD at a rate meant for Adam.

    Fix: the rate that the finding names.
    """
    if memorising(bench).learned:
        return passed()
    rates = judge_rates(bench, limits)
    if not rates.raise_helps:
        return passed()
    detail = f"{rates.best:.3g} times the rate does better"
    if limits.crawl.below(_own_gain(bench)):
        return failed(detail, _too_small(error, bench, rates))
    return failed(detail, _too_small(warning, bench, rates))


def _own_gain(bench: Bench) -> float:
    """The share of the first loss that the whole minimal rung took away."""
    own, start = memorising(bench), start_loss(bench)
    return (start - own.last) / start if own.trial.finite else float("-inf")


def _too_small(severity, bench: Bench, rates: Rates) -> Draft:
    words = rate_words(bench, rates)
    return severity(
        "learning-rate-too-small",
        f"{words['now']} is about {rates.best:.0f} times too small: at {words['then']} the same {rates.steps} steps "
        f"reach {words['reach']} instead of {words['have']}",
        fix=f"raise the learning rate to about {words['then']}",
        where="optimizer",
        **rates.evidence,
    )


def _warms_up(bench: Bench) -> bool:
    """Whether the subject's own warmup is all the correction that its Adam needs."""
    if not uncorrected_warmup(bench):
        return False
    return memorised(bench, plain_run(bench))


@check(
    "learns once Adam's bias is corrected",
    rung="sweep",
    causes=("no-bias-correction",),
    unless=ANY,
    **RATE_LIMITS,
)
def uncorrected_adam(bench: Bench, limits: Gauges) -> Verdict:
    """Where a smaller rate would let stories be memorised: is Adam's missing bias correction all that is wrong?

    Uncorrected, its first updates are several times too large, which looks like too large a rate.

    Example: `AdamW(1e-2)`, without `bias_correction=True`.

    Fix: `bias_correction=True`.
    """
    if memorising(bench).learned or uncorrected_betas(bench) is None:
        return passed()
    if _warms_up(bench):
        return passed("not with its own warmup")
    rates = judge_rates(bench, limits)
    if not rates.lower_helps:
        return passed()
    trial = corrected_run(bench)
    if not trial.points or not memorised(bench, trial):
        return passed()
    reach, have = trial.points[-1][2], rates.evidence["accuracy_by_scale"]["1"]
    return failed(
        f"{reach:.0%} with bias correction",
        error(
            "no-bias-correction",
            f"Adam without bias correction oversteps at first: corrected, the same {len(trial.losses)} steps reach "
            f"{reach:.0%} instead of {have:.0%}",
            fix="pass bias_correction=True",
            where="optimizer",
            betas=list(uncorrected_betas(bench)),
            **without_steps(rates.evidence),
        ),
    )


@check(
    "learns once a sum is divided",
    rung="sweep",
    causes=("wrong-normalisation",),
    unless=ANY,
    mended=Limit(0.5, "of what the best rate gains"),
    **RATE_LIMITS,
)
def undivided_sum(bench: Bench, limits: Gauges) -> Verdict:
    """Where a smaller rate would let stories be memorised, and the loss is a sum over tokens: is the gradient of their
    mean, at the same rate, all that it takes?

    Example: `optim.SGD(0.1)` and `cross_entropy(..., reduction="sum")`.

    Fix: divide the sum by the number of tokens.
    """
    if memorising(bench).learned:
        return passed()
    rates = judge_rates(bench, limits)
    trial = divided_run(bench) if rates.lower_helps else None
    if trial is None or not math.isfinite(trial[0]):
        return passed()
    tokens, start = sum_over_tokens(bench).tokens, start_loss(bench)
    if not limits.mended.above((start - trial[0]) / (start - rates.by_scale[rates.best][0])):
        return passed("divided it does not either")
    have = rates.evidence["accuracy_by_scale"]["1"]
    return failed(
        f"{trial[1]:.0%} with the mean",
        error(
            "wrong-normalisation",
            f"the loss is the sum over the tokens of a batch, {tokens} here, which makes each update as many times too "
            f"large: divided by them, the same {rates.steps} steps reach {trial[1]:.0%} instead of {have:.0%}",
            fix="divide the sum of the real tokens' losses by their number, mask.sum()",
            where="loss",
            tokens=tokens,
            **rates.evidence,
        ),
    )


@check(
    "the rate is small enough",
    rung="sweep",
    causes=("learning-rate-too-large",),
    unless=ANY,
    **RATE_LIMITS,
)
def small_enough(bench: Bench, limits: Gauges) -> Verdict:
    """Where stories were not memorised: does a smaller rate do far better in as many steps?

    Example: `Lion(3e-2)`; SGD at 100.

    Fix: the rate that the finding names.
    """
    if memorising(bench).learned:
        return passed()
    rates = judge_rates(bench, limits)
    if not rates.lower_helps or (_warms_up(bench) and memorised(bench, corrected_run(bench))):
        return passed()
    words = rate_words(bench, rates)
    return failed(
        f"{rates.best:.3g} times the rate does better",
        error(
            "learning-rate-too-large",
            f"{words['now']} is about {1 / rates.best:.0f} times too large: at {words['then']} the same {rates.steps} "
            f"steps reach {words['reach']} instead of {words['have']}",
            fix=f"lower the learning rate to about {words['then']}",
            where="optimizer",
            **rates.evidence,
        ),
    )
