"""Whether the weights are numbers after a training step."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.steps import watched_steps
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed


@check("a step's update is finite", rung="minimal", causes=("not-finite",))
def finite_step(bench: Bench, limits: Gauges) -> Verdict:
    """Calls the training step once on a fresh model and looks for NaN and infinities among the weights.

    One NaN spreads to every weight with the next step, and the loss stays NaN for good.

    Example: `mx.sqrt(x)` at an x of 0, whose gradient is infinite, or a mean over a row without tokens.

    Fix: look for a division by 0, a log or a root of 0, or a mean over nothing in the loss or the step.
    """
    watched = watched_steps(bench)
    figures = {"updates": watched.ratios} if watched.ratios else {}
    if watched.calls:
        return passed(**figures)
    loss = watched.losses[0]
    return failed(
        f"it returned a loss of {loss:g}",
        error(
            "not-finite",
            f"the very first training step makes the weights not finite (it returned a loss of {loss:g})",
            fix="look for a division by 0, a log of 0, or a mean over nothing in the loss or the step",
            where="train_step" if bench.subject.train_step else "loss",
            loss=loss,
        ),
        **figures,
    )
