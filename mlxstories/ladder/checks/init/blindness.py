"""Whether the model sees the tokens that it should: the last one, those before it, and their order."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.dependence import Reach, loud_view, reach
from mlxstories.ladder.bench.model.modules import is_bigram
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, skipped, warning

_NOISE = "the same input gives different logits each time"


@check(
    "sees the tokens",
    rung="init",
    causes=("input-blind", "vanishing-gradient"),
    unless=("token-out-of-range", "not-finite", "not-repeatable"),
    quick=True,
    blind=Limit(1e-5, "of the logits' spread"),
)
def tokens(bench: Bench, limits: Gauges) -> Verdict:
    """Changes the last token of a row, then all before it, with noise on the weights, and looks whether the last
    logits move at all.

    A model that ignores its input learns word frequencies and no more. Where only far larger weights let the
    tokens through, they do reach the output, and the signal dies out on the way. A model of tables alone, a bigram,
    may be meant so, and gets a warning.
    Example: `x = self.norm(positions)` where `x + positions` was meant.
    Fix: follow the tokens through the model: an embedding that is not used, a mask that hides too much.
    """
    seen = reach(bench)
    if seen is None:
        return skipped(_NOISE)
    without_last, without_past = limits.blind.below(seen.own), limits.blind.below(seen.past)
    if not (without_last or without_past):
        return passed()
    loud = loud_view(bench)
    if limits.blind.above(loud.own) and limits.blind.above(loud.past):
        return failed("only with far larger weights", _faint(seen))
    if not without_last and is_bigram(bench):
        return failed("the last alone, as counts of pairs do", _bigram(seen))
    what = (
        "any token"
        if without_last and without_past
        else "the last token"
        if without_last
        else "earlier tokens"
    )
    return failed(
        f"ignores {what}",
        error(
            "input-blind",
            f"changing {what} moves no logit at the end of the row, even with noise on all weights",
            fix="follow the tokens through the model: an embedding that is not used, a mask that hides too much, "
            "an output taken from the wrong place",
            where="model",
            change_by_last_token=seen.own,
            change_by_earlier_tokens=seen.past,
        ),
    )


def _bigram(seen: Reach) -> Draft:
    return warning(
        "input-blind",
        "the model predicts from the token just read alone, as counts of pairs do: it is made of tables and at most "
        "one layer, so nothing in it could look further back",
        fix="if it is meant as a first step, go on; attention, a recurrence or a convolution lets it look back",
        where="model",
        change_by_earlier_tokens=seen.past,
    )


def _faint(seen: Reach) -> Draft:
    return error(
        "vanishing-gradient",
        f"the signal dies out on the way: the last logits move by {max(seen.own, seen.past):.1e} of their spread "
        "when tokens change, and only much larger weights bring it back",
        fix="add residual connections and normalisation between the blocks, and avoid saturating activations",
        where="model",
        change_by_last_token=seen.own,
        change_by_earlier_tokens=seen.past,
    )


@check(
    "sees their order",
    rung="init",
    causes=("position-blind",),
    unless=("token-out-of-range", "not-finite", "not-repeatable", "input-blind", "vanishing-gradient"),
    quick=True,
    blind=Limit(1e-5, "of the logits' spread"),
)
def order(bench: Bench, limits: Gauges) -> Verdict:
    """Puts earlier tokens of a row in another order and looks whether the last logits move.

    Attention alone has no order: without positions the model sees a bag of words.
    Example: the positional embedding is built and never added.
    Fix: add positions to the embeddings or the attention (RoPE, learned or sinusoidal).
    """
    seen = reach(bench)
    if seen is None:
        return skipped(_NOISE)
    if limits.blind.below(seen.past):
        return skipped("no earlier token is seen")
    detail = f"{seen.order:.1e} relative change"
    if not limits.blind.below(seen.order):
        return passed(detail)
    return failed(
        detail,
        error(
            "position-blind",
            "the last logits do not move when earlier tokens change places: the model sees a bag of words",
            fix="add positions to the embeddings or the attention (RoPE, learned or sinusoidal)",
            where="model",
            change_by_order=seen.order,
        ),
    )
