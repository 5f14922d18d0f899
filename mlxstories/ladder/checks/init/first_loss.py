"""Whether the untrained model hands out logits, and guesses as it should before it knows anything."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.loss.objective import floor_of_double
from mlxstories.ladder.bench.model.untrained import first_answer
from mlxstories.ladder.bench.step.frozen import structure
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, warning


@check(
    "model returns logits",
    rung="init",
    causes=("double-softmax",),
    unless=("token-out-of-range", "not-finite"),
    quick=True,
    off_one=Limit(1e-2, "largest distance of a sum of logits from 1"),
)
def returns_logits(bench: Bench, limits: Gauges) -> Verdict:
    """## What it does
    Looks whether every position's outputs are positive and sum to 1.

    ## Why it is bad
    The cross-entropy applies the softmax itself: applied twice, the loss has a high floor and tiny gradients.

    ## Example
        return mx.softmax(self.head(x), axis=-1)

    ## Fix
    Return the output of the last linear layer.
    """
    answer = first_answer(bench)
    if not limits.off_one.below(answer.off_one) or answer.lowest < 0:
        return passed()
    floor = floor_of_double(answer.vocabulary)
    return failed(
        "rows sum to 1",
        error(
            "double-softmax",
            "the model returns probabilities (every row is positive and sums to 1) where the loss expects logits: "
            f"the loss can never fall below {floor:.2f} nats",
            fix="return the output of the last linear layer; the cross-entropy applies the softmax",
            where="model",
            lowest_reachable=floor,
        ),
    )


@check(
    "first loss near ln V",
    rung="init",
    causes=("bad-initialization",),
    unless=("token-out-of-range", "not-finite", "double-softmax"),
    quick=True,
    excess=Limit(3.0, "nats above ln V"),
    excess_warned_of=Limit(1.0, "nats above ln V"),
    learnt=Limit(1.15, "largest singular value, of that of random numbers"),
)
def first_loss(bench: Bench, limits: Gauges) -> Verdict:
    """## What it does
    Compares the untrained model's loss with ln V, the cost of guessing. The logit of a position's own input is
    left out where that is kinder: a tied model loves its own input at first, which training unlearns at once. What a
    pretrained model says of other texts is no matter of initial weights: matrices that are the same in every fresh
    model, and more orderly than random numbers, are not accused.

    ## Why it is bad
    Logits that start out wide are confidently wrong; training first has to unlearn them, if it can.

    ## Example
        self.head.weight = mx.random.normal((vocab_size, width))    # standard deviation 1

    ## Fix
    Initialise weights with a standard deviation near 0.02 or 1/sqrt(fan in).
    """
    answer = first_answer(bench)
    detail = f"{answer.loss:.2f}, ln V = {answer.expected:.2f}"
    bad = limits.excess.above(answer.excess)
    if not limits.excess_warned_of.above(answer.excess):
        return passed(detail)
    order = structure(bench)
    if order is not None and limits.learnt.above(order):
        return passed(f"{detail}; the weights were learnt before")
    verdict, draft = (failed, error) if bad else (passed, warning)
    return verdict(
        detail,
        draft(
            "bad-initialization",
            f"the untrained model's loss is {answer.loss:.2f} nats where guessing costs ln {answer.vocabulary} = "
            f"{answer.expected:.2f}: its logits spread by {answer.spread:.1f} instead of about 1 or less",
            fix="initialise weights with a standard deviation near 0.02 or 1/sqrt(fan in), "
            f"so {max(2.0, answer.spread):.0f} times smaller in the output layer",
            where="model",
            first_loss=answer.loss,
            ln_vocabulary=answer.expected,
            logit_spread=answer.spread,
        ),
    )
