"""Where a gradient is cut off, fades or grows on its way back through the modules."""

from __future__ import annotations

import itertools
import math
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.findings import Place
from mlxstories.ladder.bench.arrays import changed, first_of
from mlxstories.ladder.where.calls import Call, calls, steps
from mlxstories.ladder.where.forward import name_of, place_of
from mlxstories.ladder.where.places import assigned_in, class_line, place

_NOTHING = 1e-30


def arriving(model: nn.Module, ids: np.ndarray) -> list[tuple[Call, float]]:
    """Every call of a module with the size of the loss's gradient at what it returns; in order of their ends.

    The loss is that of guessing each token's own row of random numbers, so that no symmetry hides a path.
    """
    shapes: list[Any] = []

    def look(_, out):
        head = first_of(out)
        whole = isinstance(head, mx.array) and mx.issubdtype(head.dtype, mx.floating)
        shapes.append(mx.zeros(head.shape, head.dtype) if whole else None)
        return out

    found: list[Call] = []
    tokens = mx.array(ids)
    calls(model, tokens, look)
    wanted = [index for index, shift in enumerate(shapes) if shift is not None]

    def loss(shifts: list[mx.array]) -> mx.array:
        by_call = dict(zip(wanted, shifts, strict=True))

        def add(index, out):
            if index not in by_call:
                return out
            return changed(out, lambda array: array + by_call[index])

        found[:] = calls(model, tokens, add)
        logits = found[-1].after[0].astype(mx.float32)
        drawn = mx.array(np.random.default_rng(0).standard_normal(logits.shape, dtype=np.float32))
        return (nn.log_softmax(logits, axis=-1) * drawn).sum()

    sizes = [
        float(mx.abs(g.astype(mx.float32)).max()) for g in mx.grad(loss)([shapes[index] for index in wanted])
    ]
    return [(found[index], size) for index, size in zip(wanted, sizes, strict=True)]


def cut_off(model: nn.Module, ids: np.ndarray, path: str) -> Place | None:
    """Where the gradient of a parameter is cut off: in its own module, or around the call of it."""
    module = owner(model, path)[0]
    reached = arriving(model, ids)
    size = {id(call): size for call, size in reached}
    own = [call for call, _ in reached if call.module is module]
    if not own:
        return _left_out(model, ids, reached, path)
    call = own[0]
    if size[id(call)] > _NOTHING:
        return place_of(model, call)
    given = {id(array) for array in call.after}
    for user, arrived in reached:  # what it returns may be lost in the module that takes it
        if arrived > _NOTHING and any(id(array) in given for array in user.before):
            return place_of(model, user)
    for around in call.within():
        if size.get(id(around), 0.0) > _NOTHING:
            return place(call.lines[-1] if call.lines else None, name_of(model, around.module) or "model")
        call = around
    return assigned(model, path)


def _left_out(
    model: nn.Module, ids: np.ndarray, reached: list[tuple[Call, float]], path: str
) -> Place | None:
    """Where the innermost module on the way to a parameter that is called calls the others of a list, or else ends: in
    what it returns, what it holds is missing."""
    _, name, holders = owner(model, path)
    called = {id(call.module): call for call, _ in reached}
    held = next(((holder, part) for holder, part in holders if id(holder) in called), None)
    if held is None:
        return assigned(model, path)
    around = called[id(held[0])]
    others = {id(module) for module in held[0][held[1]]} if isinstance(held[0][held[1]], list) else set()
    beside = [c.lines[-1] for c, _ in reached if id(c.module) in others and c.parent is around and c.lines]
    ends = beside or [line for line, _ in steps(model, around, 0, mx.array(ids))]
    return place(ends[-1], name) if ends else assigned(model, path)


def broken(model: nn.Module, ids: np.ndarray, path: str) -> Place | None:
    """The call through which a gradient, on its way back, stops being finite; or the one of the parameter's own
    module."""
    module = owner(model, path)[0]
    reached = arriving(model, ids)
    bad = [index for index, (_, size) in enumerate(reached) if not math.isfinite(size)]
    if bad and bad[-1] + 1 < len(reached):
        return place_of(model, reached[bad[-1] + 1][0])
    own = [call for call, _ in reached if call.module is module]
    return place_of(model, own[0]) if own else None


def steepest(model: nn.Module, ids: np.ndarray, *, grows: bool) -> Place | None:
    """The call through which a gradient fades most on its way back, or grows most."""
    reached = [(call, size) for call, size in arriving(model, ids) if not _inside_of_library(call)]
    best, found = 0.0, None
    for (earlier, before), (call, after) in itertools.pairwise(reached):
        if call in earlier.within():
            continue
        ratio = (before + _NOTHING) / (after + _NOTHING)
        ratio = ratio if grows else 1 / ratio
        if ratio > best:
            best, found = ratio, call
    return place_of(model, found) if found is not None else None


def _inside_of_library(call: Call) -> bool:
    return bool(call.parent) and class_line(type(call.parent.module)) is None


def owner(model: nn.Module, path: str) -> tuple[nn.Module, str, list[tuple[nn.Module, str]]]:
    """The module that holds a parameter, its dotted path, and the (module, attribute) pairs on the way to it."""
    *way, leaf = path.split(".")
    module: Any = model
    names: list[str] = []
    steps: list[tuple[nn.Module, str]] = []
    holder, attribute = model, leaf
    for key in way:
        if isinstance(module, nn.Module):
            holder, attribute = module, key
        module = module[int(key)] if isinstance(module, list) else module[key]
        names.append(key)
        if isinstance(module, nn.Module):
            steps.append((holder, attribute))
    if not isinstance(module, nn.Module):  # an array in a list or dict of a module's
        return holder, ".".join(names), steps[::-1]
    return module, ".".join(names), [(module, leaf), *steps[::-1]]


def assigned(model: nn.Module, path: str) -> Place | None:
    """The line of the user's class that assigns a parameter, or the module of a library's that holds it."""
    module, name, steps = owner(model, path)
    for holder, attribute in steps:
        line = assigned_in(type(holder), attribute)
        if line is not None:
            return place(line, name or None)
    return place(class_line(type(module)) or class_line(type(model)), name or None)
