"""Whether a training step moves the parameters, and all of them."""

from __future__ import annotations

import numpy as np

from mlxstories.errors import shortened
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.step.gradient_arrival import gradient_arrival
from mlxstories.ladder.bench.step.optimizers import parts
from mlxstories.ladder.bench.step.steps import WatchedSteps, watched_steps
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, skipped


@check(
    "a step moves the parameters",
    rung="minimal",
    causes=("no-update", "learning-rate-too-small"),
    unless=("not-finite",),
    rate=Limit(1e-7, "learning rate"),
)
def moves(bench: Bench, limits: Gauges) -> Verdict:
    """Calls the training step a few times and compares the parameters before and after.

    A step that changes nothing trains nothing, and reports a loss all the same.

    Example: `optimizer.apply_gradients(gradients, model)` whose result is dropped, or `mx.compile` of the step
    without its outputs.

    Fix: `optimizer.update(model, gradients)`, compiled with inputs and outputs `[model.state, optimizer.state]`.
    """
    watched = watched_steps(bench)
    if watched.movers:
        return passed()
    return failed(f"{watched.calls} steps changed nothing", _still_all(bench, watched, limits))


def _still_all(bench: Bench, watched: WatchedSteps, limits: Gauges) -> Draft:
    peak = bench.schedule.peak
    tiny = bool(bench.schedule.rates) and limits.rate.below(peak)
    waits = bool(watched.counted) and not tiny and all(rate == 0 for rate in watched.rates)
    told, fix = _told(watched, peak, tiny=tiny, waits=waits)
    return error(
        "learning-rate-too-small" if tiny and peak > 0 else "no-update",
        f"{watched.calls} training steps changed no parameter{told}",
        fix=fix,
        where="optimizer" if tiny or waits else "train_step",
        calls=watched.calls,
        counted=watched.counted,
        learning_rate=peak,
    )


def _told(watched: WatchedSteps, peak: float, *, tiny: bool, waits: bool) -> tuple[str, str]:
    """What was read beside it, and what mends that."""
    if tiny:
        return (
            f": the learning rate is {peak:g}",
            "raise the learning rate: 1e-3 is usual for Adam, 0.1 for SGD",
        )
    if waits:
        return (
            f": the learning rate was 0 at each of them, and rises to {peak:g} later",
            "let the schedule begin above 0, and ask it at every update, not once an epoch",
        )
    if watched.counted:
        return (
            f", although the optimiser made {watched.counted} updates: they reach other weights than the model's, or "
            "are dropped",
            "take optimizer.update(model, gradients), or put what apply_gradients returns back with model.update; "
            "compile the step with inputs and outputs = [model.state, optimizer.state]",
        )
    return (
        ", and the optimiser was not called" if watched.counted == 0 else "",
        "call optimizer.update(model, gradients) in the step, and compile it with inputs and outputs = [model.state, "
        "optimizer.state]",
    )


@check(
    "a step moves every parameter",
    rung="minimal",
    causes=("frozen-parameters",),
    unless=("not-finite", "no-update"),
    gradient=Limit(1e-9, "largest entry of the gradient"),
    promise=Limit(1e-6, "of the weight's largest entry"),
)
def moves_all(bench: Bench, limits: Gauges) -> Verdict:
    """Names trainable parameters that have a gradient and that no step ever moves, or that weight decay alone moves,
    since their gradients are 0 where they reach the optimiser.

    They keep their random initial values: the model trains around them, and worse than it could.

    Example: an optimiser that is handed the gradients of the head alone.

    Fix: hand all gradients to the optimiser and its result to `model.update`; freeze on purpose with
    `module.freeze()`, so that `trainable_parameters()` tells.
    """
    watched = watched_steps(bench)
    if not watched.movers:
        return skipped("no parameter moved")
    still, decayed = _still(watched, limits), _decayed(bench, watched, limits)
    detail = f"{len(watched.movers) - len(decayed)} of {len(watched.weights)}"
    if not still + decayed:
        return passed(detail)
    if _decay_alone(bench):
        return skipped("no gradient reaches the optimiser: weight decay moves what moves")
    frozen = still + decayed
    total = sum(weight.size for weight in watched.weights.values())
    share = sum(watched.weights[name].size for name in frozen) / max(1, total)
    how = (
        "the step never moves them"
        if still
        else "the optimiser is handed zeros for it, and weight decay alone moves them"
    )
    return failed(
        detail,
        error(
            "frozen-parameters",
            f"{len(frozen)} trainable parameters, {share:.1%} of the weights, have a gradient but {how}: "
            f"{shortened(frozen)}",
            fix="hand their gradients to the optimiser and its result to model.update",
            where=frozen[0],
            frozen=len(frozen),
            share_of_weights=share,
        ),
    )


def _decayed(bench: Bench, watched: WatchedSteps, limits: Gauges) -> list[str]:
    """Parameters that move although the optimiser, which decays weights, is handed zeros for them."""
    decays = any(getattr(part, "weight_decay", 0) for part in parts(bench.optimizer()))
    found = gradient_arrival(bench) if decays and bench.subject.train_step else ""
    if isinstance(found, str):
        return []
    moving = [name for name in watched.movers if name in found.silent]
    return [name for name in moving if limits.gradient.above(watched.gradient.get(name, 0.0))]


def _decay_alone(bench: Bench) -> bool:
    found = gradient_arrival(bench)
    return not isinstance(found, str) and not any(step.norm for step in found.steps)


def _still(watched: WatchedSteps, limits: Gauges) -> list[str]:
    """Parameters that stood still although their gradient promises moves that would not drown in rounding."""
    reach = max(watched.moved.values(), default=0.0)
    gradient = watched.gradient
    paces = [watched.moved[n] / gradient[n] for n in watched.movers if gradient.get(n, 0.0) > 0]
    pace = float(np.median(paces or [0.0]))
    still = []
    for name, weight in watched.weights.items():
        unmoved = watched.moved.get(name, 0.0) == 0 and weight.size and weight.float32
        if unmoved and limits.gradient.above(gradient.get(name, 0.0)):
            # As large as its gradient promises, or as its neighbours move.
            move = min(reach, pace * gradient[name])
            if limits.promise.above(move / max(limits.promise.value, weight.largest)):
                still.append(name)
    return still
