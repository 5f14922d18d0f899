"""Whether norms pass on what they are given."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.norms import norms
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped


@check(
    "norms pass on what they are given",
    rung="init",
    causes=("bad-initialization",),
    unless=("token-out-of-range", "not-finite"),
    told=Limit(0.02, "of what is the same for any input"),
    shift=Limit(1e-3, "root mean square of that"),
)
def tell(bench: Bench, limits: Gauges) -> Verdict:
    """Hands noise to each norm of the untrained model, and compares what differs between rows with what is the same.

    A norm that gives out its shift alone hides the stream from the layer behind it, until its gain has grown from
    nothing by a learning rate an update. One that gives out nothing at all may be meant: its branch begins at 0.
    Example: gains that begin at 0 and shifts at 1.
    Fix: begin gains at 1 and shifts at 0.
    """
    found = norms(bench)
    if not found:
        return skipped("no norm has a shift")
    silent = [
        name
        for name, norm in found.items()
        if limits.shift.above(norm.constant) and limits.told.below(norm.varies / norm.constant)
    ]
    if not silent:
        return passed()
    more = f" and {len(silent) - 1} more" if silent[1:] else ""
    norm = found[silent[0]]
    return failed(
        f"{len(silent)} of {len(found)} give out their shift",
        error(
            "bad-initialization",
            f"whatever goes in, {norm.constant:.2g} comes out of {silent[0]}{more}, to within {norm.varies:.1g}: the "
            "gain begins near 0 and the shift does not",
            fix="initialise the gains of norms to 1 and their shifts to 0",
            where=silent[0],
            varies=norm.varies,
            constant=norm.constant,
            norms=silent,
        ),
    )
