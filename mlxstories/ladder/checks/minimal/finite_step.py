"""Whether the weights are numbers after a training step."""

from __future__ import annotations

import mlx.core as mx

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.arrays import Arrays
from mlxstories.ladder.bench.step.received_gradient import spoiled_by
from mlxstories.ladder.bench.step.steps import watched_steps
from mlxstories.ladder.bench.step.unusual_batches import unusual_batches
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
    where, part = spoiled_by(bench, _finite)
    made_here = where == "optimizer"
    told = ", though every gradient that reaches the optimiser is finite" if made_here else ""
    return failed(
        f"not after one, which returned a loss of {loss:g}",
        error(
            "not-finite",
            f"the very first training step makes the weights not finite (it returned a loss of {loss:g}){told}",
            fix="look for a division by 0 or a root of what can be negative in the optimiser's update"
            if made_here
            else f"look for a division by 0, a log of 0, or a mean over nothing in the {part}",
            where=where,
            part=part,
            loss=loss,
        ),
        **figures,
    )


def _finite(gradients: Arrays) -> bool:
    return all(bool(mx.all(mx.isfinite(g))) for g in gradients.values())


@check(
    "unusual batches keep it finite",
    rung="minimal",
    causes=("not-finite",),
    unless=("not-finite", "no-update"),
)
def extreme_steps(bench: Bench, limits: Gauges) -> Verdict:
    """Takes one step of a fresh model on each of the subject's own batches of fewest and of most real cells, and on the
    narrowest and the widest.

    One batch in a thousand without a target ends a training of days.

    Example: `(nats * mask).sum() / mask.sum()` of a batch whose rows hold prompts alone.

    Fix: divide by `mx.maximum(mask.sum(), 1)`, and leave batches without targets out.
    """
    found = unusual_batches(bench)
    broken = next((step for step in found if not step.finite), None)
    if broken is None:
        return passed(f"{len(found)} tried" if found else "all batches are alike, or large")
    rows, columns = broken.shape
    return failed(
        f"batch {broken.index} of the epoch does not",
        error(
            "not-finite",
            f"a step on batch {broken.index} of an epoch, {rows} x {columns} with {broken.real} real cells, makes the "
            f"weights not finite (it returned a loss of {broken.loss:g})",
            fix="divide by mx.maximum(mask.sum(), 1), and leave batches without targets out"
            if not broken.real
            else "look for a mean over nothing, a log of 0 or a division by 0 on a batch like this",
            where="train_step" if bench.subject.train_step else "loss",
            batch=broken.index,
            real_cells=broken.real,
            loss=broken.loss,
        ),
    )
