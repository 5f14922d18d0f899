"""Whether the model's logits can be far enough apart to be sure of a token."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.boldness import boldest
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped


@check(
    "logits can be sure of a token",
    rung="init",
    causes=("bounded-logits",),
    unless=("token-out-of-range", "not-finite", "not-repeatable", "input-blind", "double-softmax"),
    sure=Limit(0.5, "largest probability that such logits can give a token"),
)
def can_be_sure(bench: Bench, limits: Gauges) -> Verdict:
    """Multiplies all weights by up to 512, in evaluation mode, and looks how far apart logits come to lie: the surest
    that a model can be is of one token at their top while all others are at their bottom.

    Where the last step of a model keeps its logits close together, the softmax over the vocabulary stays nearly flat:
    the loss stops far above what the text allows. A soft cap of 10 leaves room enough.
    Example: `mx.tanh(self.head(x))`, a sigmoid, or cosines without a temperature.
    Fix: return the output of the last linear layer, or multiply what is bounded by a temperature.
    """
    found = boldest(bench)
    if found is None:
        return skipped("the weights overflow")
    detail = f"logits up to {found.apart:.3g} apart"
    if not limits.sure.below(found.surest):
        return passed(detail)
    return failed(
        detail,
        error(
            "bounded-logits",
            f"however large its weights, the model's logits are at most {found.apart:.2g} apart, so that it can give "
            f"no token a probability above {found.surest:.1%}",
            fix="take the activation behind the last linear layer away, or multiply what is bounded by a temperature",
            where="model",
            apart=found.apart,
            surest=found.surest,
        ),
    )
