"""Whether gradients reach what the optimiser keeps of them."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.step.never_updated import never_updated
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed
from mlxstories.ladder.where import place
from mlxstories.ladder.where.places import keyed_in


@check(
    "gradients reach the optimiser's state",
    rung="minimal",
    causes=("state-not-kept",),
    unless=("not-finite", "no-update"),
)
def state_updated(bench: Bench, limits: Gauges) -> Verdict:
    """Gives a fresh optimiser three gradients and looks for an entry of its state that is 0 at every weight all the
    same, though another value of it gives another update.

    A mean that no gradient enters is a constant: without its second moment Adam divides the first by epsilon alone,
    and a model with norms still trains, only worse.

    Example: `state["v"] = b2 * state["v"]`, where the square of the gradient is left out.

    Fix: add the gradient's share, `(1 - b2) * gradient.square()`, and assign the sum to the state.
    """
    found = never_updated(bench)
    if not found:
        return passed()
    keeper, key = found[0]
    return failed(
        f"{key} stays 0",
        error(
            "state-not-kept",
            f'`state["{key}"]` of the optimiser is still 0 at every weight after three updates, though the update goes '
            "by it: no gradient is added to it",
            fix=f'add the gradient\'s share to `state["{key}"]` at each update',
            where=place(keyed_in(type(keeper), key)) or "optimizer",
            entry=key,
        ),
    )
