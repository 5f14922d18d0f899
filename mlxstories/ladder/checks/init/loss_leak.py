"""Whether the loss shows the model later tokens that ``model(tokens)`` hides."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.loss.future_tokens import loss_sees_future, step_sees_future
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped

_UNLESS = ("token-out-of-range", "not-finite", "not-repeatable", "future-leak", "batch-leak")


@check(
    "the loss sees no later token",
    rung="init",
    causes=("future-leak",),
    needs=("loss",),
    unless=(*_UNLESS, "targets-mismatched", "wrong-loss"),
    quick=True,
    moved=Limit(1e-3, "of the change by the prefix"),
)
def loss_leak(bench: Bench, limits: Gauges) -> Verdict:
    """Masks all but the first half of a row, changes inputs after it, and looks whether the loss moves.

    The model is trained through the loss: where that calls it without its causal mask, training sees the future
    although the model alone does not.
    Example: `loss` calls `model(inputs, mask=padding_mask)` and thereby replaces the causal mask.
    Fix: let loss and `model(tokens)` use the same causal mask.
    """
    return _judge(loss_sees_future(bench), "loss", limits)


@check(
    "the step's loss sees no later token",
    rung="minimal",
    causes=("future-leak",),
    needs=("train_step",),
    unless=(*_UNLESS, "targets-mismatched", "wrong-loss", "loss-sign"),
    moved=Limit(1e-3, "of the change by the prefix"),
)
def step_leak(bench: Bench, limits: Gauges) -> Verdict:
    """Asks the same of the loss that the training step returns, with the same weights each time.

    A step may hold a loss of its own, which calls the model in another way than `model(tokens)`.
    Example: a trainer that hands the padding mask to the model, which then builds no causal one.
    Fix: join the causal mask to whatever else the step hands over.
    """
    return _judge(step_sees_future(bench), "train_step", limits)


def _judge(seen: float | None, where: str, limits: Gauges) -> Verdict:
    name = "loss" if where == "loss" else "step's loss"
    if seen is None:
        return skipped(f"the {name} heeds no mask, or does not depend on a prefix alone")
    detail = f"{seen:.1e} relative change"
    if not limits.moved.above(seen):
        return passed(detail)
    return failed(
        detail,
        error(
            "future-leak",
            f"the {name} over a prefix changes by {seen:.1%} when only later inputs change: it calls the model "
            "without its causal mask, which model(tokens) has",
            fix="combine the causal mask with every other mask that the model is given, such as a padding mask",
            where=where,
            relative_change=seen,
        ),
    )
