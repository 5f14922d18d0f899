"""Whether the backward pass is the derivative of the forward pass."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.derivative import Derivative, derivative_in_training, derivatives
from mlxstories.ladder.bench.model.forward_pass import forward_pass
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped, warning


@check(
    "the backward pass is the derivative",
    rung="init",
    causes=("backward-mismatch",),
    unless=("token-out-of-range", "not-finite", "not-repeatable", "without-effect", "dead-parameters"),
    missing=Limit(0.15, "of the gradient"),
    unsteady=Limit(0.1, "of what is missing"),
)
def backward_pass(bench: Bench, limits: Gauges) -> Verdict:
    """Moves the weights of one module after the other a little along random directions, in evaluation mode, and
    compares the change of the loss with the gradient (a gradient check).

    Such a model trains, and gets stuck at a loss that a sound one passes: the optimiser is sent in a wrong direction.
    Example: the backward pass of a norm written by hand, as an `mx.custom_function`, that takes the mean square for a
    constant; a row of scores that all get -1e9, and are lost in rounding. `mx.stop_gradient` may be meant, and is a
    warning.
    Fix: let MLX derive it, or compare each hand-written backward pass with differences.
    """
    found = derivatives(bench)
    if not found.modules:
        return skipped("no module of full precision moves the loss enough")
    wrong = [d for d in found.modules if _wrong(d, limits)]
    if not wrong:
        return passed(f"at most {max(d.missing for d in found.modules):.1%} apart")
    worst, last = max(wrong, key=lambda d: d.missing), wrong[-1]
    count = f"{len(wrong)} of {len(found.modules)} modules, the last of them {last.name}"
    apart = (
        f"the gradient of {worst.name} is not the derivative of the loss: along random directions they differ "
        f"by {worst.missing:.0%} of its length; the same holds for {count}"
    )
    evidence = {"apart": {d.name: d.missing for d in wrong}, "stops": found.stops}
    if found.stops:
        draft = warning(
            "backward-mismatch",
            f"{apart}; a forward pass calls mx.stop_gradient {found.stops} times",
            fix="remove the stop_gradient, unless it is intended",
            where=last.parameter,
            **evidence,
        )
        return passed(f"{worst.missing:.0%} apart", draft)
    if (drowned := forward_pass(bench).drowned) is not None:
        draft = error(
            "backward-mismatch",
            f"{apart}; a query has all its keys masked, by a number in which float32 loses the scores, so that it "
            "attends to all of them alike, and its scores get a gradient that moves nothing",
            fix="let each query see one key at least, its own; where each does, look for a backward pass written by "
            "hand",
            where=drowned or "model",
            **evidence,
        )
        return failed(f"{worst.missing:.0%} apart", draft)
    return failed(
        f"{worst.missing:.0%} apart",
        error(
            "backward-mismatch",
            apart,
            fix="look for a backward pass written by hand (mx.custom_function, a kernel's vjp) that forgets a term, "
            "and let MLX derive it",
            where=last.parameter,
            **evidence,
        ),
    )


def _wrong(one: Derivative, limits: Gauges) -> bool:
    return limits.missing.above(one.missing) and limits.unsteady.below(one.unsteady / one.missing)


@check(
    "the backward pass repeats the forward pass's random numbers",
    rung="init",
    causes=("backward-mismatch",),
    unless=(
        *("token-out-of-range", "not-finite", "not-repeatable", "without-effect", "dead-parameters"),
        "backward-mismatch",
    ),
    missing=Limit(0.15, "of the gradient"),
    unsteady=Limit(0.1, "of what is missing"),
)
def draws_alike(bench: Bench, limits: Gauges) -> Verdict:
    """Where the model is random in training mode: the gradient check once more in that mode, of all weights at once,
    with the random state put back before each pass.

    What the backward pass computes again draws new numbers: the gradient belongs to other units than the loss, and is
    partly noise.
    Example: `nn.utils.checkpoint` of a block with dropout; `mx.checkpoint` does not keep the random state.
    Fix: draw the masks, or keys for them, outside of what is computed again, or leave dropout out of it.
    """
    found = derivative_in_training(bench)
    if found is None or any(_wrong(d, limits) for d in derivatives(bench).modules):
        return skipped(
            "nothing in the model is random, or its gradient is another one in evaluation mode too"
        )
    detail = f"{found.missing:.1%} apart in training mode"
    if not _wrong(found, limits):
        return passed(detail)
    return failed(
        detail,
        error(
            "backward-mismatch",
            f"in training mode the gradient is not the derivative of the loss (they differ by {found.missing:.0%} of "
            "its length along random directions), while in evaluation mode it is: what the backward pass computes "
            "again draws other random numbers than the forward pass did",
            fix="draw dropout's masks, or mx.random keys for them, outside of the function given to mx.checkpoint or "
            "nn.utils.checkpoint, neither of which keeps the random state",
            where="model",
            missing=found.missing,
        ),
    )
