"""Layers that a model computes with and that MLX does not count among its parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import FunctionType, ModuleType

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.model.consistency import Change, ask, change_of, noised, plain
from mlxstories.trees import by_path


@dataclass(frozen=True)
class HiddenParameters:
    """Weights that a model computes with and that are not among its parameters.

    Attributes:
        names: of the arrays, as attributes lead to them.
        change: of the logits where these weights change.
        drawn: whether a matrix among them is as `nn.Linear` draws it, and so was never trained or loaded.
        full_precision: see `Plain`.
    """

    names: list[str]
    change: Change
    drawn: bool
    full_precision: bool


@measurement
def hidden_parameters(bench: Bench) -> HiddenParameters | None:
    """Weights of modules that `parameters()` leaves out, with noise on them, where there are any: layers in attributes
    that begin with an underscore, in tuples and in plain objects."""
    if not _outside(bench.model()):
        return None
    first, model = plain(bench), noised(bench)
    found = _outside(model)
    rng = np.random.default_rng(bench.seed)
    try:
        for module, name, array in found.values():
            noise = mx.array(rng.standard_normal(array.shape, np.float32)) * (mx.std(array) + 0.1)
            module[name] = array + noise.astype(array.dtype)
        moved = change_of(first, ask(bench, model, first.row)[0], first.logits)
    finally:
        for module, name, array in found.values():
            module[name] = array
    drawn = any(_as_drawn(array) for _, _, array in found.values())
    return HiddenParameters(list(found), moved, drawn, first.full_precision)


def _outside(model: nn.Module) -> dict[str, tuple[nn.Module, str, mx.array]]:
    """By where it lies, each array of weights that is no parameter: its module, and its name there."""
    listed = {id(array) for array in by_path(model.parameters()).values()}
    return {
        f"{path}.{name}": (module, name, array)
        for path, module in _modules_in(model)
        for name, array in module.items()
        if isinstance(array, mx.array) and not name.startswith("_") and id(array) not in listed
        if mx.issubdtype(array.dtype, mx.floating) and array.size
    }


def _as_drawn(array: mx.array) -> bool:
    """Whether an array is uniform up to 1 / sqrt(inputs), as `nn.Linear` draws it."""
    return array.ndim == 2 and 0.97 < float(mx.abs(array).max()) * array.shape[-1] ** 0.5 < 1 + 1e-4


def _modules_in(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All modules that attributes lead to, whether MLX counts them or not, each once."""
    seen, left = set(), [("", model)]
    while left:
        path, thing = left.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        inside: Iterable[tuple[object, object]] = ()
        if isinstance(thing, nn.Module):
            yield path, thing
            inside = [*thing.items(), *vars(thing).items()]
        elif isinstance(thing, dict):
            inside = thing.items()
        elif isinstance(thing, list | tuple):
            inside = enumerate(thing)
        elif not isinstance(thing, type | ModuleType | FunctionType) and hasattr(thing, "__dict__"):
            inside = vars(thing).items()
        left += [(f"{path}.{name}".lstrip("."), value) for name, value in inside]
