"""Whether the training step descends."""

from __future__ import annotations

import numpy as np

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.steps import watched_steps
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
    return failed(
        f"cosine {cosine:.2f}",
        error(
            "loss-sign",
            f"the step moves the parameters uphill: the cosine of its updates with the downhill direction of the "
            f"cross-entropy is {cosine:.2f} at each of {len(cosines)} steps",
            fix="minimise the cross-entropy itself: drop the extra minus in the loss, the gradients or the rate",
            where="train_step" if bench.subject.train_step else "loss",
            cosine=cosine,
        ),
    )
