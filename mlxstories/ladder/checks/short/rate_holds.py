"""Whether the step lowers its learning rate while training gets on."""

from __future__ import annotations

from itertools import pairwise

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.step.plan import plan
from mlxstories.ladder.bench.training.short import short_training
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import ANY, check
from mlxstories.ladder.verdict import Verdict, passed, skipped, warning


@check(
    "the rate holds while the loss falls",
    rung="short",
    causes=("schedule-out-of-step",),
    unless=ANY,
    left=Limit(0.3, "of the first rate"),
    run=Limit(0.25, "of the run"),
)
def holds(bench: Bench, limits: Gauges) -> Verdict:
    """Reads the rate of an optimiser without a schedule at each update of the short training, and the held-out loss
    on the way.

    A rate that depends on the loss should be lowered only once the loss has stopped falling. Lowered before that, it
    is next to nothing while most of the run lies ahead.

    Example: `ReduceLROnPlateau(optimizer, mode="max")` that is given a loss.

    Fix: `mode="min"` for a loss, and a patience of as many updates as its noise takes.
    """
    short, run = short_training(bench), plan(bench)
    rates = [rate for rate in short.trial.rates if rate is not None]
    if bench.schedule.scheduled or not short.finished or not rates or rates[0] <= 0:
        return skipped("a schedule's, or no rate is seen")
    left, losses = rates[-1] / rates[0], [loss for _, loss, _ in short.trial.points]
    detail = f"{left:.2g} of the first rate after {short.steps} updates"
    falling = all(after < before for before, after in pairwise(losses))
    if not (falling and limits.left.below(left) and limits.run.below(short.steps / run.updates)):
        return passed(detail)
    most = (
        f"of the run's {run.updates} updates most will"
        if run.stated
        else "unless the run ends about there, most of it will"
    )
    return passed(
        detail,
        warning(
            "schedule-out-of-step",
            f"the step lowers the learning rate from {rates[0]:.3g} to {rates[-1]:.3g} within {short.steps} updates, "
            f"while the held-out loss falls from {losses[0]:.2f} to {losses[-1]:.2f}: {most} change next "
            "to nothing",
            fix="lower the rate only once the loss has stopped falling: of a loss, a plateau is one of its minimum",
            where="train_step",
            first=rates[0],
            last=rates[-1],
            updates=short.steps,
        ),
    )
