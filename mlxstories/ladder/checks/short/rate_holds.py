"""Whether a learning rate that the step sets is lowered while training gets on, and lasts."""

from __future__ import annotations

from itertools import pairwise

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.step.plan import plan
from mlxstories.ladder.bench.training.short import first_rate, short_training
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import ANY, check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped, warning


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
    if not (_falls(losses) and limits.left.below(left) and limits.run.below(short.steps / run.updates)):
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


def _falls(losses: list[float]) -> bool:
    return all(after < before for before, after in pairwise(losses))


@check(
    "a rate that the step sets lasts",
    rung="short",
    causes=("schedule-out-of-step",),
    unless=ANY,
    spent=Limit(0.01, "of the peak"),
    half=Limit(0.5, "of a stated run"),
    alike=Limit(0.02, "of the peak, from the first rate"),
)
def lasts(bench: Bench, limits: Gauges) -> Verdict:
    """Reads the rate of an optimiser without a schedule at each update of the short training: where the subject states
    how many updates its run takes, half of them should not lie behind its end, unless the loss fell no more by then.

    A schedule multiplies its first rate by a share that falls. Where the first rate is not kept, but read back from the
    optimiser, each share is taken of the share before.

    Example: `optimizer.learning_rate = optimizer.learning_rate * share(step)`.

    Fix: keep the first rate, and multiply that one.
    """
    run, trial = plan(bench), short_training(bench).trial
    rates = [rate for rate in trial.rates if rate is not None]
    if bench.schedule.scheduled or not run.stated or max(rates, default=0.0) <= 0:
        return skipped("a schedule's, or no rate is seen, or no run is stated")
    peak = max(rates)
    end = max(i for i, rate in enumerate(rates, start=1) if not limits.spent.below(rate / peak))
    falling = _falls([loss for update, loss, _ in trial.points if update <= end])
    if end == len(rates) or not falling or not limits.half.below(end / run.updates):
        return passed(f"{rates[-1] / peak:.2g} of its peak after {len(rates)} updates")
    first = first_rate(bench)
    if first is None or limits.alike.above(abs(first - rates[0]) / peak):
        return skipped("the step counts its calls, and not those of an optimiser")
    return failed(
        f"{end} of {run.updates} updates",
        error(
            "schedule-out-of-step",
            f"the step lowers the learning rate from {peak:.3g} to 1 % of that within {end} updates, while the "
            f"held-out loss falls: {1 - end / run.updates:.0%} of the {run.updates} updates of the run change next to "
            "nothing",
            fix="multiply the first rate, not the one that the optimiser has; count the updates of the whole run",
            where="train_step",
            end=end,
            updates=run.updates,
        ),
    )
