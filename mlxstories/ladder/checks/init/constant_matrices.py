"""Whether weight matrices start at one and the same number."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.gradients import constant_matrices
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed


@check(
    "units start with different weights",
    rung="init",
    causes=("bad-initialization",),
    unless=("token-out-of-range", "not-finite", "vanishing-gradient"),
)
def constant(bench: Bench, limits: Gauges) -> Verdict:
    """Looks for trainable matrices all of whose entries are one number, other than 0 or 2 % of a usual start.

    Their units compute the same, receive the same gradient and stay copies of one for ever: a wide layer is worth
    one unit. (At 0 start gates and output layers on purpose; what they block is another check's question.)
    Example: `layer.weight = mx.full(shape, 0.02)`.
    Fix: initialise at random, with a standard deviation near 0.02 or 1/sqrt(fan in).
    """
    stuck = constant_matrices(bench).stuck
    if not stuck:
        return passed()
    return failed(
        f"{len(stuck)} constant",
        error(
            "bad-initialization",
            f"{len(stuck)} weight matrices start with all entries equal ({stuck[0]}): their units stay copies of one",
            fix="initialise matrices at random, with a standard deviation near 0.02 or 1/sqrt(fan in)",
            where=stuck[0],
            matrices=len(stuck),
        ),
    )
