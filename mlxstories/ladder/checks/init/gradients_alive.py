"""Whether every parameter, and every unit, receives a gradient."""

from __future__ import annotations

from mlxstories.errors import shortened
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.gradients import (
    STEPS,
    Followed,
    constant_matrices,
    dead,
    even,
    faint,
    followed,
    silent_units,
    tables,
    woken,
)
from mlxstories.ladder.bench.model.modules import other_names, repeated_modules
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
    rounding=Limit(1e-6, "of the matrices' median gradient"),
)
def gradients_alive(bench: Bench, limits: Gauges) -> Verdict:
    """Looks, over a few steps, for parameters and units whose gradient is exactly 0 every time, and for matrices whose
    gradient is of one size in all entries.

    They take up memory and time and learn nothing; tables that a formula fills are harmless. Where a little noise on
    the weights wakes them, they are wired soundly and the initial values cancel each other.
    Example: an output that is not used, `mx.stop_gradient`, biases so low that no ReLU fires; or both factors of
    a product at zero.
    Fix: follow the parameter forward to the loss; start at most one of two factors at zero.
    """
    found = followed(bench)
    if not found.shapes:
        return skipped("no trainable parameters")
    again = repeated_modules(bench)
    same = [_one_object(again)] if again else []
    names = _nowhere_alive(bench, dead(bench))
    count = len(found.shapes)
    detail = f"{count - len(names)} of {count} parameters"
    if names:
        asleep = woken(bench)
        if asleep and not limits.woken.below(len(asleep) / len(names)):
            return failed(detail, _cancelled(bench, found, names))
        weights = [name for name in names if name not in tables(bench)]
        if not weights:
            return passed(f"{detail}, without tables", _tables(found, names))
        return failed(detail, _dead(found, weights, limits))
    if even(bench):
        return failed(detail, _even(even(bench), found))
    rounded = {n: share for n, share in faint(bench).items() if limits.rounding.below(share)}
    if rounded:
        return passed(f"{detail}, {len(rounded)} no more than rounding", _rounded(rounded), *same)
    silent = silent_units(bench)
    if not silent or limits.silent.below(max(silent.values())):
        return passed(detail, *same)
    worst = max(silent, key=silent.get)
    return failed(f"{silent[worst]:.0%} of the units of {worst} are not", _silent(silent, limits), *same)


def _share(found: Followed, names: list[str]) -> float:
    return sum(found.sizes[n] for n in names) / sum(found.sizes.values())


def _cancelled(bench: Bench, found: Followed, names: list[str]) -> Draft:
    zero, count = constant_matrices(bench).zero, len(found.shapes)
    return error(
        "bad-initialization",
        f"{len(names)} of {count} parameters ({names[0]}, ...) have a gradient of exactly 0 for {STEPS} "
        "steps, yet a little noise on the weights wakes them: initial values cancel each other"
        + (f" ({len(zero)} matrices start at 0)" if zero else ""),
        fix="let matrices start at random, as nn.Linear does by itself; at most one of two that follow each other at 0",
        where=names[0],
        dead=len(names),
        parameters=count,
        share_of_weights=_share(found, names),
    )


def _dead(found: Followed, names: list[str], limits: Gauges) -> Draft:
    count, share = len(found.shapes), _share(found, names)
    matrices = [n for n in names if n in found.matrices]
    heavy = not limits.heavy.below(share) or bool(matrices)
    return (error if heavy else warning)(
        "dead-parameters",
        f"{len(names)} of {count} trainable parameters, {share:.1%} of the weights, never receive a "
        f"gradient: {shortened(names)}",
        fix="look for stop_gradient, an output that is not used, argmax or rounding on the way, or units that "
        "never fire",
        where=names[0],
        dead=len(names),
        parameters=count,
        share_of_weights=share,
    )


def _tables(found: Followed, names: list[str]) -> Draft:
    return warning(
        "dead-parameters",
        f"{len(names)} tables, the same in every fresh model, are trainable parameters without a gradient: "
        f"{shortened(names)}",
        fix="keep them under a name that begins with an underscore, or freeze them: weight decay shrinks what is "
        "trainable",
        where=names[0],
        dead=len(names),
        share_of_weights=_share(found, names),
    )


def _nowhere_alive(bench: Bench, names: list[str]) -> list[str]:
    """Without those that are the same array on another path, and alive there."""
    return [name for name in names if all(other in names for other in other_names(bench, name))]


def _one_object(again: dict[str, list[str]]) -> Draft:
    most = max(again.values(), key=lambda paths: (len(paths), -len(paths[0])))
    return warning(
        "dead-parameters",
        f"{', '.join(most[:-1])} and {most[-1]} are one and the same module: what looks like {len(most)} sets of "
        "weights is one",
        fix="if each was to have its own: [Block() for _ in range(n)], because [Block()] * n repeats one object",
        where=most[0],
        paths=most,
    )


def _even(names: list[str], found: Followed) -> Draft:
    return error(
        "dead-parameters",
        f"the gradient of {shortened(names)} is of one size in all entries: what "
        "would tell them apart is rounded away, and no more than a scale is learned",
        fix="let the gradient through the rounding: w + mx.stop_gradient(rounded(w) - w)",
        where=names[0],
        matrices=len(names),
        share_of_weights=_share(found, names),
    )


def _rounded(rounded: dict[str, float]) -> Draft:
    names = list(rounded)
    return warning(
        "dead-parameters",
        f"what {shortened(names)} receive{'s' * (len(names) == 1)} is no more than "
        f"rounding: {min(rounded.values()):.0e} of the usual gradient",
        fix="look for a value that does not depend on them: a weight divided by itself, for example, is always 1",
        where=names[0],
        share_of_the_usual=rounded,
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
