"""Whether step, validation and decoding follow the weights of the model that they are given."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.step.follows_weights import (
    Following,
    decoding_follows,
    evaluation_follows,
    step_follows,
)
from mlxstories.ladder.bench.step.gradient_arrival import gradient_arrival
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped

SAME = Limit(1e-7, "relative change")
MOVED = Limit(1e-3, "relative change of our own loss")
CAPTURE = (
    "give mx.compile the weights: inputs=[model.state, optimizer.state] and outputs the same, and make it from the "
    "very model that is used; a compiled function that captures a model otherwise keeps the weights of its first call"
)


@check(
    "the step follows the weights",
    rung="minimal",
    causes=("stale-computation",),
    needs=("train_step",),
    unless=("not-finite",),
    same=SAME,
    moved=MOVED,
)
def step(bench: Bench, limits: Gauges) -> Verdict:
    """Calls the step twice with the same model and batch, with other weights the second time.

    A loss that stays the same to the last digit is not this model's: its gradient is that of the first weights for
    ever, or of others that are drawn at each call.

    Example: `mx.compile` of loss and gradient without `inputs=[model.state]`; a step that makes a model of its own.

    Fix: hand `model.state` to `mx.compile` as inputs and outputs.
    """
    found = step_follows(bench)
    detail, stale = _stale(found, limits)
    if not stale:
        return passed(detail)
    told = f"the step returns {found.after:.4f} before and after the weights of the same model were changed"
    whose, fix = "old weights", CAPTURE
    if found.elsewhere == found.before:
        # One and the same figure for every model is another model's, which the gradient tells where it is not random.
        if not found.same_gradient or not isinstance(gradient_arrival(bench), str):
            return passed(detail)
        told = (
            f"with the same random numbers the step returns {found.after:.4f} and hands the optimiser the same "
            "gradient whatever the model's weights"
        )
        whose = "weights that it draws anew at each call"
        fix = "compute the loss with the model that is updated; make no other one in the step or the loss"
    return failed(
        detail,
        error(
            "stale-computation",
            f"{told}, while our own loss goes from {found.own_before:.3f} to {found.own_after:.3f}: it computes with "
            f"{whose}",
            fix=fix,
            where="train_step",
            returned=found.after,
            own_before=found.own_before,
            own_after=found.own_after,
        ),
    )


def _stale(found: Following, limits: Gauges) -> tuple[str, bool]:
    """Whether a figure stood still while our own loss moved."""
    still = limits.same.below(found.moved) and limits.moved.above(found.own_moved)
    return f"{found.moved:.1%} where ours moves {found.own_moved:.1%}", still


@check(
    "validation follows the weights",
    rung="minimal",
    causes=("stale-computation",),
    needs=("evaluate",),
    unless=("not-finite",),
    same=SAME,
    moved=MOVED,
)
def evaluation(bench: Bench, limits: Gauges) -> Verdict:
    """Evaluates the same model with other weights, and again after a few steps.

    Figures that stay the same to the last digit are of the first weights: no progress ever shows.

    Example: a compiled forward pass that captured the model when it was traced.

    Fix: hand `model.state` to `mx.compile` as inputs.
    """
    found = evaluation_follows(bench)
    if found is None:
        return skipped("evaluate tells no loss of these batches")
    detail, stale = _stale(found, limits)
    if not stale:
        return passed(detail)
    return failed(
        detail,
        error(
            "stale-computation",
            f"evaluate reports {found.after:.4f} before and after the weights of the same model were changed, and "
            f"after steps on it, while our own loss goes from {found.own_before:.3f} to {found.own_after:.3f}",
            fix=CAPTURE,
            where="evaluate",
            part="evaluation",
            reported=found.after,
            own_before=found.own_before,
            own_after=found.own_after,
        ),
    )


@check(
    "decoding follows the weights",
    rung="minimal",
    causes=("stale-computation",),
    needs=("generate",),
    unless=("not-finite", "future-leak", "batch-leak"),
)
def decoding(bench: Bench, limits: Gauges) -> Verdict:
    """Decodes from the same model with two sets of weights that choose another first id.

    Text that stays the same is that of the first weights.

    Example: a compiled decoding step that captured the model.

    Fix: hand `model.state` to `mx.compile` as inputs.
    """
    found = decoding_follows(bench)
    if found is None or not found.before or found.before[0] != found.own_before:
        return skipped("greedy decoding departs from the model's choice anyway")
    if found.after != found.before:
        return passed()
    return failed(
        "",
        error(
            "stale-computation",
            f"generate gives the ids {found.before} before and after the weights of the same model were changed, "
            f"while the first choice of the model goes from {found.own_before} to {found.own_after}",
            fix=CAPTURE,
            where="generate",
            part="generation",
            ids=found.before,
            own_before=found.own_before,
            own_after=found.own_after,
        ),
    )
