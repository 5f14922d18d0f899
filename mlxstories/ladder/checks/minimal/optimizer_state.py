"""Whether the optimiser remembers what it did."""

from __future__ import annotations

import numpy as np

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.step.steps import WatchedSteps, watched_steps
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped


@check(
    "optimiser state is kept",
    rung="minimal",
    causes=("state-not-kept",),
    unless=("not-finite", "no-update"),
    updates=Limit(2, "updates after the first"),
    spread=Limit(0.05, "coefficient of variation"),
    beyond_the_first=Limit(0.005, "above five times the first step's"),
    decay=Limit(1e-3, "of the weights a step"),
    unlike=Limit(0.1, "coefficient of variation, of the gradient's entries"),
)
def state_kept(bench: Bench, limits: Gauges) -> Verdict:
    """Looks at how the sizes of an update's entries spread, from the second step on.

    Adam from nothing moves every entry by the same amount, whatever its gradient. One that does so at every step
    starts from nothing each time: it is sign descent, without momentum.

    Example: the optimiser is made inside of the step, or `optimizer.init(model)` is called in it.

    Fix: make the optimiser once, and list `optimizer.state` in the inputs and outputs of `mx.compile`.
    """
    watched = watched_steps(bench)
    if watched.optimizer_steps is None:
        return skipped("judged for Adam and its kin")
    later = watched.spreads[1:]
    detail = f"spread of update sizes {np.median(later or [0]):.2f}"
    if not _starts_anew(watched, later, limits):
        return passed(detail)
    return failed(
        detail,
        error(
            "state-not-kept",
            f"after {watched.updates} steps every entry still moves by the same amount (spread {max(later):.1%}), as "
            "Adam does on its very first step: its moments start from 0 each time",
            fix="make the optimiser once, do not call init again, and list optimizer.state in the inputs and outputs "
            "of mx.compile",
            where="train_step",
            spread_of_update_sizes=[round(s, 4) for s in watched.spreads],
            optimizer_steps=watched.optimizer_steps,
            updates=watched.updates,
        ),
    )


def _starts_anew(watched: WatchedSteps, later: list[float], limits: Gauges) -> bool:
    if not limits.updates.above(len(later)):
        return False
    alike = limits.spread.below(max(later)) and limits.beyond_the_first.below(
        max(later) - 5 * watched.spreads[0]
    )
    # Where the gradient is as large at every entry, as through a scale of sign(weight), any Adam does so.
    alike = alike and all(limits.unlike.above(slope) for slope in watched.slopes)
    # Decay moves entries by different amounts, and hides what is asked here.
    return alike and not any(limits.decay.above(decay) for decay in watched.decays)
