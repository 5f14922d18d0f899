"""Whether the loss has a gradient at all."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.loss.loss_slope import loss_slope
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped


@check(
    "the loss has a gradient",
    rung="init",
    causes=("wrong-loss",),
    needs=("loss",),
    unless=("token-out-of-range", "not-finite", "dead-parameters", "vanishing-gradient"),
    least=Limit(1e-6, "of the gradient of the cross-entropy, by length"),
)
def loss_has_gradient(bench: Bench, limits: Gauges) -> Verdict:
    """Takes the gradient of the loss with respect to all parameters, and that of our own cross-entropy on the same
    batch.

    Where the graph is cut between logits and loss every gradient is 0, and what still moves the weights is weight
    decay. A step that takes its gradient elsewhere is not reported.
    Example: `mx.stop_gradient(model(x))` in the loss; `.item()`, or an argmax, on the way.
    Fix: compute the loss from the logits of the model that `nn.value_and_grad` is given.
    """
    found = loss_slope(bench)
    if not found.ours:
        return skipped("the cross-entropy has no gradient either")
    share = found.loss / found.ours
    detail = f"{share:.2g} times that of the cross-entropy"
    if not limits.least.below(share) or (
        found.received and not limits.least.below(found.received / found.ours)
    ):
        return passed(detail)
    if bench.subject.train_step is not None and found.received is None:
        return passed(f"{detail}; what the step hands on cannot be read")
    return failed(
        detail,
        error(
            "wrong-loss",
            f"the gradient of the loss is 0 for every parameter, although the loss is {found.value:.3f} and its "
            f"cross-entropy has a gradient of length {found.ours:.2g}: the graph is cut between logits and loss, and "
            "nothing is learned",
            fix="remove mx.stop_gradient, .item() and argmax between the logits and the loss",
            where="loss, cut off",
            length=found.loss,
            length_of_cross_entropy=found.ours,
        ),
    )
