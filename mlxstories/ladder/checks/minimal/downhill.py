"""Whether the training step, and the optimiser by itself, descend."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.arrays import Arrays
from mlxstories.ladder.bench.samples import probe_batch
from mlxstories.ladder.bench.step.optimizer_alone import descent_cosines
from mlxstories.ladder.bench.step.received_gradient import spoiled_by
from mlxstories.ladder.bench.step.steps import watched_steps
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped


@check(
    "a step goes downhill",
    rung="minimal",
    causes=("loss-sign",),
    unless=("not-finite", "no-update"),
    uphill=Limit(-0.05, "cosine"),
)
def downhill(bench: Bench, limits: Gauges) -> Verdict:
    """Compares the direction of each update with the downhill direction of our own cross-entropy.

    Steps that climb the loss make the right tokens ever less likely.

    Example: a loss that returns the mean of log p, without the minus; gradients that are negated once too often.

    Fix: minimise the mean of -log p itself, with a positive learning rate.
    """
    cosines = watched_steps(bench).cosines
    if not cosines:
        return skipped("no update among the first calls")
    cosine = float(np.median(cosines))
    if not limits.uphill.below(cosine) or max(cosines) >= 0:
        return passed(f"cosine {cosine:.2f}")
    gradient = bench.gradients(bench.model(), probe_batch(bench, 0))
    where, part = spoiled_by(bench, lambda other: _along(gradient, other))
    return failed(
        f"cosine {cosine:.2f}",
        error(
            "loss-sign",
            f"the step moves the parameters uphill: the cosine of its updates with the downhill direction of the "
            f"cross-entropy is {cosine:.2f} at each of {len(cosines)} steps",
            fix="minimise the cross-entropy itself: drop the extra minus in the loss, the gradients or the rate",
            where=where,
            part=part,
            cosine=cosine,
        ),
    )


def _along(one: Arrays, other: Arrays) -> bool:
    """Whether gradients by parameter point the same way."""
    return float(sum((g.astype(mx.float32) * other[n]).sum() for n, g in one.items() if n in other)) > 0


@check(
    "the optimiser keeps going downhill",
    rung="minimal",
    causes=("loss-sign",),
    unless=("not-finite", "no-update", "loss-sign", "gradient-mismatch"),
    uphill=Limit(-0.05, "cosine"),
)
def keeps_descending(bench: Bench, limits: Gauges) -> Verdict:
    """Gives a fresh optimiser one gradient again and again, for the same weights, and compares the direction of its
    last updates with the gradient's descent.

    The first step shows nothing of what an optimiser remembers: a momentum of the wrong sign outweighs the gradient
    only after some ten.

    Example: `w - rate * g + rate * momentum * v`, where the velocity v sums up gradients.

    Fix: `w - rate * (g + momentum * v)`.
    """
    cosines = descent_cosines(bench)
    if not cosines:
        return skipped("it moves nothing, or takes no plain gradient")
    last = float(np.median(cosines[-5:]))
    detail = f"cosine {cosines[0]:.2f}, later {last:.2f}"
    if not limits.uphill.below(last):
        return passed(detail)
    return failed(
        detail,
        error(
            "loss-sign",
            f"given the same gradient {len(cosines)} times, the optimiser ends up moving uphill: the cosine of its "
            f"updates with the descent direction is {cosines[0]:.2f} at the first and {last:.2f} at the last",
            fix="look at the sign with which the optimiser's momentum enters its step: w - rate * (g + momentum * v)",
            where="optimizer",
            part="step",
            first=cosines[0],
            last=last,
        ),
    )
