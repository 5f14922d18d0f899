"""Whether attention is drawn away from near tokens before anything is learnt."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.forward_pass import forward_pass
from mlxstories.ladder.bench.model.untrained import first_answer
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped


@check(
    "attention is not drawn to far tokens",
    rung="init",
    causes=("context-cut",),
    unless=("token-out-of-range", "not-finite", "batch-leak", "future-leak", "context-cut"),
    knows=Limit(0.5, "nats below guessing"),
    fit=Limit(0.9, "correlation of score and distance"),
    rise=Limit(3.0, "nats from the nearest key to the farthest"),
)
def far_tokens(bench: Bench, limits: Gauges) -> Verdict:
    """Watches the attention scores of the untrained model, mean over rows, and lays a line through those of each head
    over the distance between query and key. Random weights know no distance, so that what rises is a bias.

    With a rise of three nats the nearest token gets a twentieth of the farthest one's attention, and near tokens say
    most about the next one. Heads that fall elsewhere make it a choice.
    Example: a linear bias (ALiBi) of the wrong sign, which its gentle slopes make learnable all the same, only worse.
    Fix: penalise the distance, do not reward it.
    """
    answer, found = first_answer(bench), forward_pass(bench).rises
    if limits.knows.above(answer.expected - answer.loss):
        return skipped("the model is trained already")
    lines = [head.rise for head in found if limits.fit.above(abs(head.fit))]
    if not lines:
        return passed("scores know no distance") if found else skipped("no attention seen")
    highest, lowest = max(lines), min(lines)
    detail = f"{highest:+.2g} nats from near to far"
    if lowest < 0 or not limits.rise.above(highest):
        return passed(detail)
    return failed(
        detail,
        error(
            "context-cut",
            f"before anything is learnt, a head's attention scores rise by {highest:.1f} nats from the nearest token "
            "to the farthest, and those of no head fall: near tokens are hidden behind far ones",
            fix="look at the sign of the attention bias: it should fall with the distance",
            where="model",
            rise=highest,
            heads_with_a_slope=len(lines),
        ),
    )
