"""Whether a model of 16 bits computes in 16 bits."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.forward_pass import forward_pass
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, passed, skipped, warning


@check(
    "half precision is kept",
    rung="init",
    causes=("precision-promoted",),
    unless=("token-out-of-range", "not-finite"),
    share=Limit(0.3, "of the layers with weights of 16 bits"),
)
def kept(bench: Bench, limits: Gauges) -> Verdict:
    """Watches a forward pass and counts the layers with weights of 16 bits that are handed float32.

    One float32 array on the way turns everything after it into float32: you pay for half precision in accuracy, and
    gain neither time nor memory.
    Example: a mask made by `mx.zeros((T, T))` and added to bfloat16 scores; scalars that are float32 parameters.
    Fix: `mask.astype(x.dtype)`.
    """
    found = forward_pass(bench)
    if not found.halves:
        return skipped("no layer has weights of 16 bits")
    share = len(found.promoted) / found.halves
    detail = f"{len(found.promoted)} of {found.halves} layers compute in float32"
    if not limits.share.above(share):
        return passed(detail)
    return passed(
        detail,
        warning(
            "precision-promoted",
            f"{len(found.promoted)} of {found.halves} layers with weights of 16 bits are handed float32, the first at "
            f"{found.promoted[0]}: a float32 array on the way promotes all that follows",
            fix="give masks, tables and scalars the type of what they are added to: mask.astype(x.dtype)",
            where=found.promoted[0],
            promoted=len(found.promoted),
            layers=found.halves,
        ),
    )
