"""Whether the model's logits can go where they should, far enough apart and to both sides, and attention scores too."""

from __future__ import annotations

import numpy as np

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.confidence import cut_off, flattest_scores, highest_confidence
from mlxstories.ladder.bench.model.forward_pass import forward_pass
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
    found = highest_confidence(bench)
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
            fix="remove the activation after the last linear layer, or multiply the bounded values by a temperature",
            where="model",
            apart=found.apart,
            surest=found.surest,
        ),
    )


@check(
    "logits run into no bound",
    rung="init",
    causes=("bounded-logits",),
    unless=(
        "token-out-of-range",
        "not-finite",
        "not-repeatable",
        "input-blind",
        "bounded-logits",
        "double-softmax",
    ),
    share=Limit(0.1, "of the logits of tokens that are there in some places alone"),
    tokens=Limit(0.5, "of the tokens"),
    gap=Limit(0.1, "of the distance from the lowest logit to the highest"),
)
def free(bench: Bench, limits: Gauges) -> Verdict:
    """Looks in a row's logits, with noise on the weights, for many that lie exactly at the lowest or highest value of
    all, and others right beside it: they were cut off there.

    What is cut off gets no gradient, and no token can be less likely than the bound says. Tokens that are forbidden
    lie at a bound, too, but far from all others, or everywhere.
    Example: `nn.relu(self.head(x))`; a list of layers in which each has its activation, the last one, too.
    Fix: return the output of the last linear layer.
    """
    found = cut_off(bench)
    if found is None:
        return skipped("logits are all the same, or not finite")
    detail = f"{found.share:.0%} at {found.bound:.3g}"
    common = limits.share.above(found.share) and limits.tokens.above(found.tokens)
    if not common or limits.gap.above(found.gap):
        return passed(detail)
    return failed(
        detail,
        error(
            "bounded-logits",
            f"{found.share:.0%} of the logits are exactly {found.bound:.3g}, and none lies beyond: an activation "
            "behind the output layer cuts them off, and what is cut off gets no gradient",
            fix="remove the activation after the last linear layer",
            where="model",
            bound=found.bound,
            share=found.share,
        ),
    )


@check(
    "attention can be sure of a token",
    rung="init",
    causes=("extreme-scale",),
    unless=("token-out-of-range", "not-finite", "not-repeatable", "input-blind"),
    apart=Limit(1.0, "nats between two attention scores of one query"),
)
def attends(bench: Bench, limits: Gauges) -> Verdict:
    """Multiplies all weights by up to 512, in evaluation mode, and looks how far apart the attention scores of one
    query come to lie.

    Where they are bounded closely, each token gets nearly the same share, whatever is learnt: attention stays close to
    a mean. Normalised queries and keys have room enough where their products are multiplied by the root of the head's
    width, or by a learned temperature.
    Example: cosines of queries and keys that are divided by `sqrt(d)` besides.
    Fix: multiply cosines by a temperature of about 10, or a learned one.
    """
    apart = flattest_scores(bench)
    if apart is None:
        return skipped("no attention seen, or all its scores are the same")
    detail = f"scores up to {apart:.3g} apart"
    if not limits.apart.below(apart):
        return passed(detail)
    return failed(
        detail,
        error(
            "extreme-scale",
            f"however large the model's weights, attention scores of one query are at most {apart:.2g} apart, so that "
            f"no token gets more than {np.exp(apart):.2g} times the share of another: attention stays close to a mean",
            fix="multiply normalised queries and keys by a temperature of about 10, or a learned one, instead of "
            "dividing them by the root of the head's width",
            where=forward_pass(bench).attention or "model",
            apart=apart,
        ),
    )
