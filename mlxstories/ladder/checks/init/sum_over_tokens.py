"""Whether a sum over tokens is divided by their number before it is followed."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.loss.sum_over_tokens import sum_over_tokens
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, passed, skipped, warning


@check(
    "a sum over tokens is divided",
    rung="init",
    causes=("wrong-normalisation",),
    needs=("loss",),
    unless=("token-out-of-range", "not-finite", "wrong-loss", "wrong-normalisation"),
    arriving=Limit(2.0, "times the gradient of the mean"),
)
def divided(bench: Bench, limits: Gauges) -> Verdict:
    """Gives the loss logits that are all 0: a mean says ln V, a sum ln V times the tokens. Of a sum, compares the
    gradient that reaches the optimiser with that of the mean.

    Adam hardly minds, but the printed loss, the gradient's norm, what a clip leaves of it and every rate of SGD then
    depend on how many tokens a batch has.
    Example: `(losses * mask).sum()`.
    Fix: `(losses * mask).sum() / mask.sum()`.
    """
    found = sum_over_tokens(bench)
    if found is None:
        return skipped("the loss is no sum over tokens")
    detail = f"a sum of {found.tokens} tokens, whose gradient arrives at {found.arriving:.3g} times that of the mean"
    if not limits.arriving.above(found.arriving):
        return passed(detail)
    return passed(
        detail,
        warning(
            "wrong-normalisation",
            f"the loss is the sum over the tokens of a batch, {found.tokens} here, and reaches the optimiser "
            "undivided: what is printed is no loss per token, and the gradient's norm grows with the batch",
            fix="divide the sum of the real tokens' losses by their number, mask.sum()",
            where="loss",
            tokens=found.tokens,
            arriving=found.arriving,
        ),
    )
