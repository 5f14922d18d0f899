"""Do smaller or corrected steps do far better on real batches?"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.step.adam import uncorrected_betas, uncorrected_warmup
from mlxstories.ladder.bench.step.plan import plan
from mlxstories.ladder.bench.training.short import (
    ShortTraining,
    baselines,
    corrected,
    cost_of_a_third,
    elsewhere,
    plain,
    short_training,
    slower,
    unramped,
)
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import ANY, check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, warning


@check(
    "steps of the right size",
    rung="short",
    causes=("no-bias-correction", "learning-rate-too-large"),
    unless=ANY,
    learned=Limit(0.1, "nats above the best count"),
    gain=Limit(0.3, "nats"),
    margins=Limit(2, "margins"),
    third=Limit(0.05, "nats lost at a third of the rate"),
)
def right_steps(bench: Bench, limits: Gauges) -> Verdict:
    """Where training stays above what counts alone reach, trains again with Adam's missing bias correction, and
    at a tenth of the rate where memorising did no worse at a third of it; what does far better must do so from other
    first weights, too.

    Steps that overshoot undo each other: the loss hovers, and looks like a model that cannot learn.

    Example: ``Adam(1e-2, betas=[0.9, 0.999])`` without ``bias_correction``, whose first steps are several times
    too long.

    Fix: ``bias_correction=True``, or a tenth of the learning rate.
    """
    short = short_training(bench)
    if limits.learned.below(short.loss - baselines(bench).best):
        return passed("close to the best count or below")
    return (
        _uncorrected(bench, short, limits)
        or _too_bold(bench, short, limits)
        or passed("no other does better")
    )


def _uncorrected(bench: Bench, short: ShortTraining, limits: Gauges) -> Verdict | None:
    run = corrected(bench)
    if run is None or not far_better(short, short.loss, run.end, limits):
        return None
    # A warmup of its own may be all the correction that Adam needs; one that is longer than this is not seen here.
    warmup = uncorrected_warmup(bench)
    if warmup > short.steps or (warmup and not far_better(short, plain(bench).end, run.end, limits)):
        return None
    if not _elsewhere_too(bench, short, "corrected", limits):
        return None
    cause = error(
        "no-bias-correction",
        f"Adam without bias correction oversteps: {short.steps} steps of real training end at {short.loss:.2f} nats, "
        f"with the correction at {run.end:.2f}",
        fix="pass bias_correction=True",
        where="optimizer",
        betas=list(uncorrected_betas(bench)),
        loss_corrected=run.end,
        **_evidence(bench, short),
    )
    return failed(f"{short.loss:.2f} nats, bias corrected {run.end:.2f}", cause)


def _too_bold(bench: Bench, short: ShortTraining, limits: Gauges) -> Verdict | None:
    if not limits.third.below(cost_of_a_third(bench)):
        return None
    loss, other = short.loss, slower(bench).end
    if plan(bench).warmup and (run := corrected(bench)) is not None:  # the rate alone, then
        loss = min(loss, run.end)
    if far_better(short, loss, other, limits):  # before an accusation, without the ramp
        loss = min(loss, unramped(bench).end)
    if not far_better(short, loss, other, limits) or not _elsewhere_too(bench, short, "slower", limits):
        return None
    # Its own warmup is longer than the one here, and bears more.
    sound = bool(plan(bench).warmup) and not far_better(short, plain(bench).end, other, limits)
    cause = too_large(bench, other, {**_evidence(bench, short), "loss": loss}, warning if sound else error)
    return (passed if sound else failed)(f"{loss:.2f} nats, {other:.2f} at a tenth of the rate", cause)


def _evidence(bench: Bench, short: ShortTraining) -> dict:
    return {
        "loss": short.loss,
        "margin": short.margin,
        "unigram": baselines(bench).unigram,
        "steps": short.steps,
    }


def _elsewhere_too(bench: Bench, short: ShortTraining, change: str, limits: Gauges) -> bool:
    """Whether a change does far better from other first weights, too: of one draw it may be luck."""
    ends = elsewhere(bench)
    return far_better(short, ends["own"], ends[change], limits)


def far_better(short: ShortTraining, loss: float, other: float, limits: Gauges) -> bool:
    """Whether ``other`` is below ``loss`` by more than chance would have it."""
    if not isfinite(other):
        return False
    return limits.gain.above(loss - other) and loss - other > limits.margins.value * short.margin


def too_large(bench: Bench, other: float, evidence: dict, severity: Callable[..., Draft] = error) -> Draft:
    """The finding that a tenth of the rate does far better, ``other`` against the ``loss`` of the evidence."""
    peak, steps, loss = bench.schedule.peak, evidence["steps"], evidence["loss"]
    return severity(
        "learning-rate-too-large",
        (f"learning rate {peak:g}" if peak else "the step's size")
        + f" is too large for real batches: {steps} steps end at {loss:.2f} nats, at a tenth of it at {other:.2f}",
        fix=f"lower the learning rate to about {peak / 10:.2g}"
        if peak
        else "make the steps ten times smaller",
        where="optimizer",
        learning_rate=peak,
        loss_at_a_tenth_of_the_rate=other,
        **evidence,
    )
