"""Does the trained model see what it must not, and does it gain from it?"""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.training.trained import (
    gain_from_later_tokens,
    matrix_after_training,
    sight_after_training,
)
from mlxstories.ladder.checks.init import leaks
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, passed, skipped

_LEAKS = ("not-repeatable", "batch-leak", "future-leak")
_UNTRAINED = "no training run ended well"


@check(
    "rows are independent after training",
    rung="trained",
    causes=("batch-leak",),
    unless=_LEAKS,
    **leaks.LIMITS,
)
def rows_after_training(bench: Bench, limits: Gauges) -> Verdict:
    """Changes other rows of a batch and looks whether a row's logits move, now that the weights are trained.

    A path that starts at 0, as gates and residual scales do, opens only in training.

    Example: a learned share of the batch mean.

    Fix: normalise and attend within a row.
    """
    view = sight_after_training(bench)
    return leaks.rows_verdict([("after training", view)], limits) if view else skipped(_UNTRAINED)


@check(
    "sees no later token after training",
    rung="trained",
    causes=("future-leak",),
    unless=_LEAKS,
    **leaks.LIMITS,
)
def future_after_training(bench: Bench, limits: Gauges) -> Verdict:
    """Changes the ends of rows and looks whether earlier logits move, now that the weights are trained.

    A path that starts at 0, as gates and residual scales do, opens only in training.

    Example: a residual branch over the whole row behind a gate of 0.

    Fix: mask attention, and pool or normalise over no later position.
    """
    view = sight_after_training(bench)
    return leaks.future_verdict([("after training", view)], limits) if view else skipped(_UNTRAINED)


@check("gain from seeing later tokens", rung="trained", worth=Limit(0.01, "nats a token"))
def gain(bench: Bench, limits: Gauges) -> Verdict:
    """Measures what the trained model gains from what follows: its loss with the true rest of a row, against that
    with another rest. It judges nothing, for what is wrong was said where the leak was found.

    A loss that later tokens lower is worth nothing: there are none when the model writes.

    Example: attention without a mask, 5 nats a token.

    Fix: that of the leak.
    """
    worth = gain_from_later_tokens(bench)
    if worth is None:
        return skipped(_UNTRAINED)
    answer = skipped if limits.worth.above(worth) else passed
    return answer(f"{worth:.2f} nats a token", causality=matrix_after_training(bench))
