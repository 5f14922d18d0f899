"""Whether the first gradients are numbers."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.gradients import followed
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped


@check(
    "gradients finite",
    rung="init",
    causes=("not-finite",),
    unless=("token-out-of-range", "not-finite"),
)
def gradients_finite(bench: Bench, limits: Gauges) -> Verdict:
    """Takes a few steps of AdamW on the mean cross-entropy and looks at the gradient of every parameter.

    A loss can be finite where its gradient is not; one such step and all weights are NaN.
    Example: `mx.sqrt(x.square().sum())` at x = 0, or 0 * inf under a mask.
    Fix: add a small number under roots and in denominators.
    """
    found = followed(bench)
    if not found.shapes:
        return skipped("no trainable parameters")
    if where := found.infinite:
        return failed(
            "",
            error(
                "not-finite",
                f"the gradient of {where} is not finite although the loss is",
                fix="look for sqrt or norm at 0, a division by a sum that can be 0, or 0 * inf under a mask",
                where=where,
            ),
        )
    norms = {n: {"first": found.first[n], "later": found.last[n]} for n in found.shapes if n in found.first}
    return passed("", gradients=norms)
