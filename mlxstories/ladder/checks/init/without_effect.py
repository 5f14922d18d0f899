"""Whether every matrix that is given a gradient, and every rotation, has a say in the logits."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.effects import effects
from mlxstories.ladder.bench.model.rotations import rotations
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped


@check(
    "every matrix has an effect",
    rung="init",
    causes=("without-effect",),
    unless=(
        *("token-out-of-range", "not-finite", "not-repeatable", "batch-leak", "future-leak", "input-blind"),
        *("vanishing-gradient", "dead-parameters", "frozen-parameters"),
    ),
    effect=Limit(1e-6, "of the logits' spread"),
    gradient=Limit(1e-4, "of the gradient of all"),
)
def has_effect(bench: Bench, limits: Gauges) -> Verdict:
    """Adds noise to one matrix after the other, in evaluation mode, and looks whether any logit moves where a
    gradient says that it should.

    A gradient tells the optimiser to move what changes nothing: part of the model is there in name only.
    Example: a mask of -1e9 added where it should hide nothing: in float32 the scores drown in it, attention is a plain
    mean, and queries and keys have no effect.
    Fix: follow the matrix's output to the logits and look for a constant that drowns it, or rounds it away.
    """
    found = effects(bench)
    if not found:
        return skipped("no matrix of full precision has a gradient")
    idle = [e for e in found if limits.effect.below(e.moved) and limits.gradient.above(e.gradient)]
    if not idle:
        return passed(f"the least moves logits by {min(e.moved for e in found):.1e} of their spread")
    names = ", ".join(e.name for e in idle[:2]) + (f" and {len(idle) - 2} more" if idle[2:] else "")
    return failed(
        f"{len(idle)} of {len(found)} move no logit",
        error(
            "without-effect",
            f"{names}: noise as large as the weights themselves moves no logit, although a gradient arrives there",
            fix="follow its output to the logits: attention scores that drown in a mask of -1e9 added to all keys, or "
            "a constant so large that float32 rounds the rest away",
            where=idle[0].name,
            matrices=[e.name for e in idle],
            share_of_gradient=idle[0].gradient,
        ),
    )


@check(
    "rotary positions have an effect",
    rung="init",
    causes=("without-effect",),
    unless=("token-out-of-range", "not-finite", "not-repeatable", "batch-leak", "future-leak", "input-blind"),
    turned=Limit(1e-4, "of the logits' spread"),
)
def turns(bench: Bench, limits: Gauges) -> Verdict:
    """Leaves MLX's rotations out, in evaluation mode with noise on the weights, and looks whether any logit moves.

    Queries and keys turned by the same angle give the scores they would give unturned: the model has no positions but
    those that the causal mask betrays.
    Example: `nn.RoPE` called on [B, T, heads, d], where it turns by the number of the head.
    Fix: transpose to [B, heads, T, d] first: `nn.RoPE` takes the last axis but one for the positions.
    """
    moved = rotations(bench)
    if moved is None:
        return skipped("no rotation of MLX's is called, or the model rounds inside")
    detail = f"{moved:.1e} of the logits' spread"
    if not limits.turned.below(moved):
        return passed(detail)
    return failed(
        detail,
        error(
            "without-effect",
            "without its rotary positions the model gives the same logits: queries and keys are rotated alike at every "
            "position",
            fix="call nn.RoPE on [B, heads, T, d]: it counts positions along the last axis but one",
            where="model",
            change=moved,
        ),
    )
