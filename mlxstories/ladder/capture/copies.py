"""Copies of what a script holds, and what its functions see besides their arguments."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.optimizers import Optimizer

from mlxstories.ladder.bench.arrays import first_of
from mlxstories.ladder.modes import modes, put_modes
from mlxstories.ladder.patches import rerouted, tokens_of
from mlxstories.trees import by_path

Path = tuple  # of keys and indices that lead to a leaf


def clone(value: Any, memo: dict | None = None) -> Any:
    """A copy of modules, optimisers and containers with arrays of its own; functions and settings are shared."""
    memo = {} if memo is None else memo
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, mx.array):
        memo[id(value)] = mx.array(value)
    elif isinstance(value, np.ndarray):
        memo[id(value)] = value.copy()
    elif isinstance(value, (nn.Module, Optimizer)):
        new = memo[id(value)] = type(value).__new__(type(value))
        new.__dict__.update({key: clone(item, memo) for key, item in value.__dict__.items()})
        if isinstance(value, nn.Module):
            dict.update(new, {key: clone(item, memo) for key, item in dict.items(value)})
    elif type(value) is dict:
        memo[id(value)] = {key: clone(item, memo) for key, item in value.items()}
    elif type(value) in (list, tuple):
        memo[id(value)] = type(value)(clone(item, memo) for item in value)
    else:
        return value
    return memo[id(value)]


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, mx.array | np.ndarray]]:
    """The arrays in a tree of dicts, lists and tuples, with the way to each; modules are not entered."""
    if isinstance(value, (mx.array, np.ndarray)):
        yield path, value
    elif type(value) is dict:
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))


def with_leaf(value: Any, path: Path, leaf: Any) -> Any:
    """A copy of a tree in which ``leaf`` stands at ``path``."""
    if not path:
        return leaf
    if type(value) is dict:
        return {**value, path[0]: with_leaf(value[path[0]], path[1:], leaf)}
    items = list(value)
    items[path[0]] = with_leaf(items[path[0]], path[1:], leaf)
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)


def seen_by(function: Callable) -> dict[str, Any]:
    """Names and values that a function sees besides its arguments: its closure and the globals it names."""
    function = getattr(function, "func", function)  # of a partial
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    if code is None:
        return {}
    seen = {name: function.__globals__[name] for name in code.co_names if name in function.__globals__}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            seen[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return seen


def refitted(function: Callable, changes: dict[str, Any]) -> Callable:
    """A copy of a function that sees other values under the names that `seen_by` lists."""
    plain = getattr(function, "__func__", function)
    if not changes or not isinstance(plain, types.FunctionType):
        return function
    code = plain.__code__
    cells = tuple(
        types.CellType(changes[name]) if name in changes else cell
        for name, cell in zip(code.co_freevars, plain.__closure__ or (), strict=True)
    )
    names = {name: value for name, value in changes.items() if name not in code.co_freevars}
    scope = {**plain.__globals__, **names} if names else plain.__globals__
    new = types.FunctionType(code, scope, plain.__name__, plain.__defaults__, cells or None)
    new.__kwdefaults__ = plain.__kwdefaults__
    return types.MethodType(new, function.__self__) if hasattr(function, "__self__") else new


def module_of(function: Callable, arguments: tuple = (), depth: int = 2) -> nn.Module | None:
    """The module that a function trains: among its arguments, bound to it, or seen by it."""
    owner = getattr(getattr(function, "func", function), "__self__", None)
    own = list(vars(owner).values()) if hasattr(owner, "__dict__") else []
    near = [*arguments, owner, *own, *seen_by(function).values()]
    found = next((value for value in near if isinstance(value, nn.Module)), None)
    if found is None and depth > 1:
        functions = [value for value in near if isinstance(value, (types.FunctionType, types.MethodType))]
        found = next((m for m in (module_of(f, (), depth - 1) for f in functions) if m is not None), None)
    return found


def scalar(value: Any) -> mx.array:
    """The loss itself, where a loss function returns more beside it."""
    if isinstance(value, dict):
        value = value["loss"] if "loss" in value else next(iter(value.values()))
    return first_of(value)


def host(array: mx.array | np.ndarray) -> np.ndarray:
    """As numpy, which knows no bfloat16."""
    if isinstance(array, mx.array) and array.dtype == mx.bfloat16:
        array = array.astype(mx.float32)
    return np.array(array)


def whole(array: Any) -> bool:
    """Whether this may be token ids: an array of integers, [T] or [B, T]."""
    if isinstance(array, mx.array):
        return mx.issubdtype(array.dtype, mx.integer) and array.ndim in (1, 2)
    return isinstance(array, np.ndarray) and array.dtype.kind in "iu" and array.ndim in (1, 2)


def alike(own: nn.Module, model: Any) -> bool:
    """Whether ``model`` has the parameters of ``own``, by name; a mask's shape may depend on the last call."""
    if not isinstance(model, nn.Module):
        return False
    return by_path(own.parameters()).keys() == by_path(model.parameters()).keys()


def _to_the_end(logits: Any, args: tuple, kwargs: dict) -> Any:
    """Known logits with one more place, for a row that is read to its last token, whose logits nobody asks about."""
    missing = tokens_of(args, kwargs).shape[1] - logits.shape[1] if isinstance(logits, mx.array) else 0
    return mx.pad(logits, [(0, 0), (0, 1), (0, 0)]) if missing == 1 else logits


@contextmanager
def bound(own: nn.Module, model: nn.Module) -> Iterator[None]:
    """Inside, the script's own module carries the parameters and the mode of ``model``; where that is another kind of
    model, with logits that are known, it answers instead."""
    parameters, kept = own.parameters(), modes(own)
    instead = nullcontext()
    if alike(own, model):
        own.update(model.parameters())
        own.train(model.training)
    else:
        instead = rerouted(own, lambda _, *args, **kwargs: _to_the_end(model(*args, **kwargs), args, kwargs))
    try:
        with instead:
            yield
    finally:
        own.update(parameters)
        put_modes(kept)
