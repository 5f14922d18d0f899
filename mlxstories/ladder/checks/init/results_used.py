"""Whether what layers without weights return reaches the logits."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.layer_results import layer_results
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, passed, skipped, warning
from mlxstories.ladder.where import place


@check(
    "what layers return is used",
    rung="init",
    causes=("without-effect",),
    unless=(
        *("token-out-of-range", "not-finite", "not-repeatable", "batch-leak", "future-leak", "input-blind"),
        *("vanishing-gradient", "dead-parameters", "frozen-parameters", "without-effect"),
    ),
    effect=Limit(1e-6, "of the logits' spread"),
)
def results_used(bench: Bench, limits: Gauges) -> Verdict:
    """Adds noise to what one layer without weights returns after the other, in evaluation mode, and looks whether
    anything that the model returns moves. Layers with weights need no such test: they would get no gradient.

    Arrays are not changed in place: a layer that is called for what it returns does nothing where that is dropped.
    Example: `rope(q)` where `q = rope(q)` is meant; the model has no positions.
    Fix: assign what the layer returns, and use it; or delete the call.
    """
    found = layer_results(bench)
    if not found:
        return skipped("no layer without weights is called")
    idle = next((call for call in found if limits.effect.below(call.moved)), None)
    least = min(call.moved for call in found)
    if idle is None:
        return passed(f"the least moves logits by {least:.1e} of their spread")
    return passed(
        f"{idle.kind} moves no logit",
        warning(
            "without-effect",
            f"{idle.kind} is called, but noise added to what it returns moves no logit: its result is not used",
            fix="assign what the layer returns and use it, or delete the call",
            where=place(idle.line),
        ),
    )
