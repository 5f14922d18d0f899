"""Whether something stands between two linear layers."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.inside import linear_pairs
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, passed, warning


@check(
    "layers are not linear together",
    rung="init",
    causes=("missing-nonlinearity",),
    unless=("token-out-of-range", "not-finite"),
)
def nonlinear(bench: Bench, limits: Gauges) -> Verdict:
    """Adds up two inputs of every module that holds several matrices, and looks whether its outputs add up too. Pairs
    through a narrow middle, as of low-rank adapters, are left out.

    Two linear layers with nothing between them can do no more than one: parameters and time are paid for twice.
    Example: `self.down(self.up(x))`, where an activation was meant.
    Fix: `self.down(nn.gelu(self.up(x)))`.
    """
    found = linear_pairs(bench)
    if not found:
        return passed()
    more = f" (and {len(found) - 1} more like it)" if len(found) > 1 else ""
    return passed(
        f"{found[0]} is linear",
        warning(
            "missing-nonlinearity",
            f"{found[0]}{more} holds several matrices and is linear all the same: together they can do no more "
            "than one",
            fix="call the activation between the two layers",
            where=found[0],
            modules=found,
        ),
    )
