"""Whether weight decay keeps the model from learning."""

from __future__ import annotations

from mlxstories.findings.limits import FADES
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.step.decay import undecayed_run, weight_decay
from mlxstories.ladder.bench.training.memorising import memorised, memorising
from mlxstories.ladder.checks.sweep.rate_evidence import sweep_evidence, without_steps
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import ANY, check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, warning


@check(
    "weight decay",
    rung="sweep",
    causes=("weight-decay-too-large",),
    unless=ANY,
    share=Limit(1e-3, "of the weights a step"),
    forgets=FADES,
    better=Limit(0.2, "of the loss, taken away without it"),
)
def decayed(bench: Bench, limits: Gauges) -> Verdict:
    """Where stories were not memorised: are they once the shrinking part of each update is taken out? Where they were,
    decay by which weights are forgotten within some two hundred steps is told as a warning.

    Decay pulls every weight towards 0 at each step. With a coefficient far above 0.1 it pulls harder than the
    gradient does.

    Example: `AdamW(1e-3, weight_decay=100)`; decay that is not multiplied by the learning rate.

    Fix: a weight decay of 0.1 or less.
    """
    share = weight_decay(bench).share
    detail = f"{max(share, 0):.1e} of the weights a step"
    own = memorising(bench)
    if own.learned or not limits.share.above(share):
        return passed(detail, *([_forgets(share)] if limits.forgets.above(share) else []))
    trial = undecayed_run(bench)
    if not trial.points or not trial.finite:
        return passed(detail)
    without, last = trial.points[-1][1], own.last
    if not memorised(bench, trial) and not limits.better.above((last - without) / last):
        return passed(detail)
    return failed(detail, _draft(bench, share, without, last))


def _forgets(share: float) -> Draft:
    return warning(
        "weight-decay-too-large",
        f"weight decay takes {share:.2%} of the weights at every step: what was learnt {1 / share:.0f} steps ago has "
        "faded to a third",
        fix="multiply the decay by the learning rate, as AdamW does, and keep it at 0.1 or less",
        where="optimizer",
        decay_per_step=share,
    )


def _draft(bench: Bench, share: float, without: float, last: float) -> Draft:
    peak = bench.schedule.peak
    coefficient = share / peak if peak else float("nan")
    steps = len(memorising(bench).trial.losses)
    return error(
        "weight-decay-too-large",
        f"weight decay takes {share:.2%} of the weights at every step (a coefficient of about {coefficient:.2g}): "
        f"without it {steps} steps reach {without:.2f} nats instead of {last:.2f}",
        fix="set weight_decay to 0.1 or less",
        where="optimizer",
        decay_per_step=share,
        coefficient=coefficient,
        loss_without=without,
        loss_with=last,
        **without_steps(sweep_evidence(bench)),
    )
