"""Whether training survives its own beginning."""

from __future__ import annotations

from math import isfinite

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.step.adam import uncorrected_betas
from mlxstories.ladder.bench.training.first_updates import UPDATES, Beginning, beginnings
from mlxstories.ladder.bench.training.short import corrected, short_training, unramped
from mlxstories.ladder.checks.short.overstepping import far_better
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import ANY, check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, warning


@check(
    "survives its first updates",
    rung="short",
    causes=("learning-rate-too-large", "no-bias-correction"),
    unless=ANY,
    grown=Limit(1.25, "times the untrained model's loss"),
    gain=Limit(0.3, "nats"),
    margins=Limit(2, "margins"),
)
def survives(bench: Bench, limits: Gauges) -> Verdict:
    """Makes the first 20 updates just as the subject makes them, under two seeds, and compares the held-out loss
    before and after. Where it has grown under both: is the loss after some dozens of updates far above that of the
    same updates after a short warmup?

    The other trainings of this rung grow their updates over the first 10. A run without a warmup does not, and what
    explodes in its beginning may take long to come back.

    Example: `SGD(2.0, momentum=0.9)`, or `AdamW(3e-2)` without a warmup.

    Fix: warm up for a few dozen updates, or lower the rate.
    """
    found = beginnings(bench)
    grown = [_grown(begun, limits) for begun in found]
    detail = ", ".join(f"{begun.start:.2f} to {begun.end:.2f}" for begun in found) + " nats"
    if not any(grown):
        return passed(detail)
    worst = max(found, key=lambda begun: begun.end if isfinite(begun.end) else float("inf"))
    short, whole = short_training(bench), unramped(bench).end
    behind = not isfinite(whole) or far_better(short, whole, short.loss, limits)
    if all(grown) and behind:
        return failed(detail, _draft(error, bench, worst, whole))
    return passed(detail, _draft(warning, bench, worst, whole))


def _grown(begun: Beginning, limits: Gauges) -> bool:
    if not isfinite(begun.end):
        return True
    return limits.grown.above(begun.end / max(begun.start, 1e-9)) and limits.gain.above(
        begun.end - begun.start
    )


def _draft(severity, bench: Bench, worst: Beginning, whole: float) -> Draft:
    short, plain = short_training(bench), uncorrected_betas(bench) is not None
    bias = plain and corrected(bench).end < whole
    return severity(
        "no-bias-correction" if bias else "learning-rate-too-large",
        f"the first {UPDATES} updates take the held-out loss from {worst.start:.2f} to {worst.end:.2f} nats; "
        f"{short.steps} of them reach {whole:.2f}, and {short.loss:.2f} where the first 10 grow to their full size",
        fix="pass bias_correction=True, and warm up for a few dozen updates"
        if bias
        else "warm up for a few dozen updates, or lower the learning rate",
        where="optimizer",
        updates=UPDATES,
        before=worst.start,
        after=worst.end,
        loss=whole,
        loss_with_warmup=short.loss,
        learning_rate=bench.schedule.peak,
    )
