"""Entries of an optimiser's state that its updates depend on and that no gradient ever reaches."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx.optimizers import Optimizer

from mlxstories.ladder.bench.arrays import Arrays
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.samples import probe_batch
from mlxstories.ladder.bench.step.optimizers import applied, parts, put_states_back, states
from mlxstories.trees import by_path

_UPDATES = 3
_STEPS = 12  # a curvature is taken every tenth, as a rule


@measurement
def never_updated(bench: Bench) -> list[tuple[Optimizer, str]]:
    """Entries of the optimiser's state, each with the optimiser that keeps it, that are still 0 for every weight after
    three updates with gradients that are not, although updates depend on them: with the gradient's size in their place
    the update is another. Empty where the optimiser takes no plain gradients, or the subject's own step fills them."""
    model, optimizer = bench.model(), bench.optimizer()
    gradient = bench.gradients(model, probe_batch(bench, 0))
    weights = {n: a for n, a in by_path(model.trainable_parameters()).items() if n in gradient}
    try:
        moved = weights
        for index in range(_UPDATES):  # some go by how gradients, or weights, differ from the last
            moved = applied(optimizer, {n: (1 + index) * g for n, g in gradient.items()}, moved)
        found = [
            (part, key)
            for part in parts(optimizer)
            for key in _still(part, gradient)
            if _matters(optimizer, part, key, gradient, weights)
        ]
        fed = _fed_apart(bench, gradient) if found and bench.subject.train_step else set()
        return [(part, key) for part, key in found if key not in fed]
    except Exception:  # an optimiser that wants more than gradients
        return []


def _matters(optimizer: Optimizer, part: Optimizer, key: str, gradient: Arrays, weights: Arrays) -> bool:
    """Whether the next update is another one if this entry holds the size of the gradient."""
    kept = states(optimizer)
    plain = applied(optimizer, gradient, weights)
    put_states_back(optimizer, kept)
    for state, size in _still(part, gradient)[key]:  # looked up again, since lists were restored as copies
        state[key] = size
    other = applied(optimizer, gradient, weights)
    put_states_back(optimizer, kept)
    return any(bool(mx.any(plain[n] != a)) for n, a in other.items())


def _fed_apart(bench: Bench, gradient: Arrays) -> set[str]:
    """Names of entries that the subject's own step fills, such as a curvature estimated every few updates."""
    model, optimizer = bench.model(), bench.optimizer()
    for index in range(_STEPS):
        bench.step(model, optimizer, probe_batch(bench, index))
    names = {key for part in parts(optimizer) for n in gradient for key in _at(part.state, n) or ()}
    return names - {key for part in parts(optimizer) for key in _still(part, gradient)}


def _still(part: Optimizer, gradient: Arrays) -> dict[str, list[tuple[dict[str, Any], mx.array]]]:
    """Names of entries of a weight's shape that are 0 wherever its gradient is not, each with the states that hold one
    and the size of the gradient there."""
    found: dict[str, list[tuple[dict[str, Any], mx.array]]] = {}
    moved = set()
    for name, slope in gradient.items():
        state = _at(part.state, name)
        if state is None or not bool(mx.any(slope != 0)):
            continue
        for key, entry in state.items():
            if isinstance(entry, mx.array) and entry.shape == slope.shape:
                found.setdefault(key, []).append((state, mx.abs(slope).astype(entry.dtype)))
                if bool(mx.any(entry != 0)):
                    moved.add(key)
    return {key: entries for key, entries in found.items() if key not in moved}


def _at(state: Any, name: str) -> dict[str, Any] | None:
    """The state of a weight by its dotted path."""
    for step in name.split("."):
        try:
            state = state[int(step)] if isinstance(state, list) else state[step]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
    return state if isinstance(state, dict) else None
