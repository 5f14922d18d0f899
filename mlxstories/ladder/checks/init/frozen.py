"""Whether weights that start at random can be trained, and whether there are any."""

from __future__ import annotations

from mlxstories.errors import shortened
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.gradients import followed
from mlxstories.ladder.bench.step.frozen import Frozen, frozen
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, note, passed


@check(
    "nothing frozen at random values",
    rung="init",
    causes=("frozen-parameters",),
    unless=("token-out-of-range", "not-finite"),
    structure=Limit(1.15, "largest singular value, of that of random numbers"),
    knows=Limit(0.5, "nats below guessing"),
)
def nothing_frozen(bench: Bench, limits: Gauges) -> Verdict:
    """Looks for arrays that are not trainable although every fresh model has other values in them; where `model()`
    hands out one object only, for matrices that cannot be told from random numbers in a model that knows nothing.

    Frozen noise: no training will improve it. Tables and pretrained weights are frozen on purpose, and the same in
    every model.
    Example: `freeze()` of an earlier experiment is left in; or layers are kept in `self._layers`, which MLX does
    not count among the parameters.
    Fix: `unfreeze()` what is to learn, and let no attribute that holds layers begin with an underscore.
    """
    found = frozen(bench)
    drawn = found.drawn + _noise(found, limits)
    detail = f"{len(found.names)} frozen"
    if drawn:
        return failed(detail, _at_random(found, drawn))
    if not found.names:
        return passed(detail)
    return passed(
        detail,
        note(
            "frozen-parameters",
            f"{len(found.names)} parameters are not trained, the same in every fresh model: "
            f"{shortened(found.names)}",
            fix="nothing to do if these are tables or pretrained weights",
            where=found.names[0],
            frozen=len(found.names),
        ),
    )


def _noise(found: Frozen, limits: Gauges) -> list[str]:
    """Where models cannot be compared: matrices that look drawn, unless the model has learned something before."""
    if not found.edges or limits.knows.above(found.gain):
        return []
    return [name for name, edge in found.edges.items() if not limits.structure.above(edge)]


def _at_random(found: Frozen, drawn: list[str]):
    share = sum(found.sizes[n] for n in drawn) / max(1, sum(found.sizes.values()))
    return error(
        "frozen-parameters",
        f"{len(drawn)} parameters, {share:.1%} of the weights, are frozen at their random initial values: "
        f"{shortened(drawn)}",
        fix="rename the attribute so that it does not begin with an underscore: MLX leaves those out of the "
        "parameters"
        if set(drawn) & set(found.hidden)
        else "call unfreeze() on the modules that are to learn",
        where=drawn[0],
        frozen=len(drawn),
        share_of_weights=share,
    )


@check(
    "there is something to train",
    rung="init",
    causes=("no-update",),
    unless=("token-out-of-range", "not-finite", "frozen-parameters"),
)
def something_to_train(bench: Bench, limits: Gauges) -> Verdict:
    """Asks the model for its trainable parameters.

    Without any, every step leaves the model as it is.
    Example: `model.freeze()`, or arrays kept in attributes that begin with an underscore.
    Fix: unfreeze the model.
    """
    count = len(followed(bench).shapes)
    if count:
        return passed(f"{count} parameters")
    return failed(
        "no trainable parameters",
        error(
            "no-update",
            "the model has no trainable parameters",
            fix="unfreeze the model, and keep arrays in attributes whose names do not begin with an underscore",
            where="model",
        ),
    )
