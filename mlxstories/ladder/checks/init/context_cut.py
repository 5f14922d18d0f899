"""Whether each position sees the tokens right before it."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.context import context
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, skipped, warning

_SHOWN = 6  # places in a message


@check(
    "sees its own past",
    rung="init",
    causes=("context-cut",),
    unless=(
        "token-out-of-range",
        "not-finite",
        "not-repeatable",
        "batch-leak",
        "future-leak",
        "length-dependent",
    ),
    blind=Limit(1e-6, "of the usual change by an earlier token"),
    hidden=Limit(0.01, "of the change by far tokens"),
    fainter=Limit(0.3, "of the change by far tokens"),
)
def sees_its_past(bench: Bench, limits: Gauges) -> Verdict:
    """Changes single tokens, one at a time and in several rows, and looks which later positions move: each should
    see some earlier token, and near tokens no less than far ones.

    Near tokens say most about the next one. A position that does not see them predicts word frequencies.
    Example: a linear bias of the wrong sign, or attention within blocks without a way from one to the next.
    Fix: let each position attend to all before it; penalise the distance, do not reward it.
    """
    seen = context(bench)
    if seen is None:
        return skipped("no position sees a past, or rows are too short")
    blind = [place for place, past in enumerate(seen.past, start=1) if limits.blind.below(past)]
    hidden = limits.hidden.below(seen.near)
    detail = f"near tokens count {seen.near:.2g} times as much as far ones"
    if not (blind or hidden):
        return passed(detail, *([_fainter(seen.near)] if limits.fainter.below(seen.near) else []))
    if blind:
        places = ", ".join(map(str, blind[:_SHOWN])) + (", ..." if blind[_SHOWN:] else "")
        message = f"of {seen.size} positions, those at {places} see none of the tokens before them"
        fix = "let each position attend to all before it, or pass something on from one block to the next"
    else:
        message = (
            f"the nearest quarter of a position's past moves its logits {seen.near:.1e} times as much as the "
            "farthest quarter: near tokens are hidden behind far ones"
        )
        fix = (
            "look at the sign of the attention bias or of a state's decay (what is far should count less) and at the "
            "mask's direction"
        )
    return failed(
        f"{len(blind)} positions see no past" if blind else detail,
        error("context-cut", message, fix=fix, where="model", positions=blind, near_over_far=seen.near),
    )


def _fainter(near: float) -> Draft:
    return warning(
        "context-cut",
        f"the farthest quarter of a position's past moves its logits {1 / near:.1f} times as much as the nearest "
        "quarter: what weighs the past grows with the distance",
        fix="look at what makes weights from distances, such as a decay: its sign, its base and its exponent",
        where="model",
        near_over_far=near,
    )
