"""Whether copies of one weight stay one."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.step.gradient_arrival import replicas
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed


@check(
    "copies of a weight stay equal",
    rung="minimal",
    causes=("replicas-diverge",),
    needs=("train_step",),
    unless=("not-finite", "no-update", "stale-computation", "gradient-mismatch"),
    apart=Limit(0.01, "of the length of their gradients"),
)
def copies(bench: Bench, limits: Gauges) -> Verdict:
    """Looks among the gradients that reach the optimiser for pairs that point exactly the same way, at paths that
    differ in one number: copies of one weight on several ranks. Are they as long?

    Copies that take different steps drift apart, and the model that is saved, the first rank's, is not the one that
    was trained.
    Example: gradients clipped on the first rank alone (BLOOM, DeepSpeed pull request 1801).
    Fix: do to every rank's gradients what is done to one's.
    """
    found = replicas(bench)
    apart = {pair: ratio for pair, ratio in found.items() if limits.apart.above(abs(ratio - 1))}
    if not apart:
        return passed(f"{len(found)} pairs of copies" if found else "no copies")
    (one, other), ratio = next(iter(apart.items()))
    return failed(
        f"{len(apart)} of {len(found)} pairs differ",
        error(
            "replicas-diverge",
            f"{one} and {other} receive the same gradient, but the first's is {ratio:.3g} times as long: copies of one "
            "weight take different steps, and drift apart",
            fix="clip, scale and average the gradients of all copies alike",
            where=one,
            ratio=ratio,
            pairs=len(apart),
        ),
    )
