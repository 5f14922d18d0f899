"""Whether every parameter, and every unit, receives a gradient."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.gradients import (
    STEPS,
    Followed,
    constant_matrices,
    followed,
    silent_units,
    woken,
)
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, skipped, warning


@check(
    "gradients alive",
    rung="init",
    causes=("dead-parameters", "bad-initialization"),
    unless=("token-out-of-range", "not-finite", "vanishing-gradient"),
    woken=Limit(0.5, "of the dead parameters"),
    heavy=Limit(0.01, "of the weights"),
    silent=Limit(0.5, "of the units of a layer"),
    silent_layer=Limit(0.9, "of the units of a layer"),
)
def gradients_alive(bench: Bench, limits: Gauges) -> Verdict:
    """Looks, over a few steps, for parameters and units whose gradient is exactly 0 every time.

    They take up memory and time and learn nothing. Where a little noise on the weights wakes them, they are wired
    soundly and the initial values cancel each other.
    Example: an output that is not used, `mx.stop_gradient`, biases so low that no ReLU fires; or both factors of
    a product at zero.
    Fix: follow the parameter forward to the loss; start at most one of two factors at zero.
    """
    found = followed(bench)
    if not found.shapes:
        return skipped("no trainable parameters")
    count, dead = len(found.shapes), found.dead
    detail = f"{count - len(dead)} of {count} parameters"
    if dead:
        asleep = woken(bench)
        if asleep and not limits.woken.below(len(asleep) / len(dead)):
            return failed(detail, _cancelled(bench, found))
        return failed(detail, _dead(found, limits))
    silent = silent_units(bench)
    if not silent or limits.silent.below(max(silent.values())):
        return passed(detail)
    return failed(detail, _silent(silent, limits))


def _share(found: Followed) -> float:
    return sum(found.sizes[n] for n in found.dead) / sum(found.sizes.values())


def _cancelled(bench: Bench, found: Followed) -> Draft:
    zero, dead, count = constant_matrices(bench).zero, found.dead, len(found.shapes)
    return error(
        "bad-initialization",
        f"{len(dead)} of {count} parameters ({dead[0]}, ...) have a gradient of exactly 0 for {STEPS} "
        "steps, yet a little noise on the weights wakes them: initial values cancel each other"
        + (f" ({len(zero)} matrices start at 0)" if zero else ""),
        fix="start at most one of two factors at zero, the other at random",
        where=dead[0],
        dead=len(dead),
        parameters=count,
        share_of_weights=_share(found),
    )


def _dead(found: Followed, limits: Gauges) -> Draft:
    dead, count, share = found.dead, len(found.shapes), _share(found)
    matrices = [n for n in dead if n in found.matrices]
    heavy = not limits.heavy.below(share) or bool(matrices)
    return (error if heavy else warning)(
        "dead-parameters",
        f"{len(dead)} of {count} trainable parameters, {share:.1%} of the weights, never receive a "
        f"gradient: {', '.join(dead[:3])}" + (" ..." if dead[3:] else ""),
        fix="look for stop_gradient, an output that is not used, argmax or rounding on the way, or units that "
        "never fire",
        where=dead[0],
        dead=len(dead),
        parameters=count,
        share_of_weights=share,
    )


def _silent(silent: dict[str, float], limits: Gauges) -> Draft:
    worst = max(silent, key=silent.get)
    return (warning if limits.silent_layer.below(silent[worst]) else error)(
        "dead-parameters",
        f"{silent[worst]:.0%} of the units of {worst} never receive a gradient",
        fix="their activation never fires: lower the bias or the learning rate, or use GELU or SiLU",
        where=worst,
        dead_units=silent[worst],
    )
