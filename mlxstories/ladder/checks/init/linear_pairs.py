"""Whether something stands between two linear layers."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.linear_chains import linear_chains
from mlxstories.ladder.bench.model.module_response import linear_pairs
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
    """Adds up two inputs of every module that holds several matrices, and looks whether its outputs add up too; and
    looks for linear layers that are given the very array that another one returned. Pairs through a narrow middle, as
    of low-rank adapters, are left out, and so are those whose first layer serves others besides.

    Two linear layers with nothing between them can do no more than one: parameters and time are spent twice.
    Example: `self.down(self.up(x))`, or `nn.gelu(self.down(self.up(x)))`, where an activation was meant in between.
    Fix: `self.down(nn.gelu(self.up(x)))`.
    """
    modules = linear_pairs(bench)
    within = tuple(f"{path}." for path in modules)
    chains = [(one, other) for one, other in linear_chains(bench) if not other.startswith(within)]
    if not modules and not chains:
        return passed()
    where = modules[0] if modules else chains[0][1]
    more = len(modules) + len(chains) - 1
    others = f" (and {more} more like it)" if more else ""
    told = (
        f"{where}{others} holds several matrices and is linear all the same"
        if modules
        else f"{where}{others} is given just what {chains[0][0]} returns, and both are linear"
    )
    return passed(
        f"{where} is linear",
        warning(
            "missing-nonlinearity",
            f"{told}: together they can do no more than one",
            fix="call the activation between the two layers",
            where=where,
            modules=[*modules, *(other for _, other in chains)],
        ),
    )
