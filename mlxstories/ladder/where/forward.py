"""The first module of a forward pass whose input is still sound and whose output is not, and the line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.findings import Place
from mlxstories.ladder.bench.arrays import full_precision
from mlxstories.ladder.where.calls import Call, Step, calls, steps
from mlxstories.ladder.where.places import Line, line_of, of_model, place
from mlxstories.trees import by_path

_ROUNDING = 1e-5  # of the largest entry, with weights of 32 bits
_COARSE = 2e-2  # of 16 bits
_LENGTHS = (29, 23, 19, 17, 13, 11, 7, 5)  # rare as the size of anything else

Variables = dict[str, list[mx.array]]
Shows = Callable[[list[mx.array], list[mx.array]], bool]


@dataclass(frozen=True)
class Probe:
    """Two inputs, [B, T] ids each, and whether the arrays of two passes at one place show the fault; where it is that
    something gets ``lost``, that is so of all that comes after it; a ``masked`` one is what masks hide."""

    one: np.ndarray
    two: np.ndarray
    shows: Shows
    lost: bool = False
    masked: bool = False


def probe_of(kind: str, inputs: np.ndarray, model: nn.Module, *, whole: bool = False) -> Probe:
    """The probe for one kind of fault: "future", "rows", "number", "length", "own", "past", "finite", "repeats",
    "softmax" or "weights". Its rows are cut to a length that is the size of nothing else, or ``whole``.
    """
    sizes = {n for array in _parameters(model) for n in array.shape}
    cut = (n for n in _LENGTHS if n < inputs.shape[1] and n not in sizes and not whole)
    length = next(cut, inputs.shape[1])
    ids = np.maximum(inputs[:3, :length], 0).astype(np.int32)
    ids = np.concatenate([ids] * 3)[:3]
    other, keep = ids[:, ::-1].copy(), length // 2 | 1  # odd, for leaks within pairs
    other = np.where(other == ids, np.roll(other, 1, axis=1), other)
    fine = full_precision(model.parameters())
    apart = _Apart(_ROUNDING if fine else _COARSE)
    if kind == "future":
        two = np.concatenate([ids[:, :keep], other[:, keep:]], axis=1)
        return Probe(ids, two, apart.on((length, length), slice(0, keep)), masked=True)
    if kind == "rows":
        two = np.stack([other[0], ids[1], other[2]])
        return Probe(ids, two, apart.on((3, 3), slice(1, 2)))
    if kind == "number":
        return Probe(ids[:1].repeat(3, 0), ids[:1].repeat(5, 0), apart.on((3, 5), slice(1, 2), slice(3, 4)))
    if kind == "length":
        return Probe(ids, ids[:, : keep + 1], apart.on((length, keep + 1), slice(0, keep + 1)))
    if kind == "own":
        two = np.concatenate([ids[:, :-1], (ids[:, -1:] + 1) % (ids.max() + 1)], axis=1)
        moved = apart.on((length, length), slice(length - 1, None))
        return Probe(ids, two, lambda a, b: not moved(a, b), lost=True)
    if kind == "past":
        two = np.concatenate([other[:, :-1], ids[:, -1:]], axis=1)
        return Probe(ids, two, apart.on((length, length), slice(length - 1, None)))
    if kind == "repeats":
        return Probe(ids, ids, lambda a, b: any(map(apart.differ, a, b)))
    if kind == "weights":
        return Probe(ids, ids, lambda a, b: not any(map(apart.differ, a, b)), lost=True)
    return Probe(ids, ids, {"finite": _broken, "softmax": _shares}[kind])


class _Apart:
    """Whether arrays of two passes differ in a part of an axis."""

    def __init__(self, tolerance: float):
        self.tolerance = tolerance

    def on(self, sizes: tuple[int, int], part: slice, other: slice | None = None) -> Shows:
        """In this part (``other`` in the second pass) of the axes that have these sizes in the two passes; of the first
        one where both sizes are the same."""

        def differ(a: mx.array, b: mx.array) -> bool:
            axes = [i for i, pair in enumerate(zip(a.shape, b.shape, strict=False)) if pair == sizes]
            for axis in axes[:1] if sizes[0] == sizes[1] else axes:
                a, b = (_cut(array, axis, cut) for array, cut in ((a, part), (b, other or part)))
            return bool(axes) and self.differ(a, b)

        return lambda one, two: any(map(differ, one, two))

    def differ(self, a: mx.array, b: mx.array) -> bool:
        if a.shape != b.shape or not a.size:
            return False
        if not mx.issubdtype(a.dtype, mx.inexact):
            return bool(mx.any(a != b))
        a, b = a.astype(mx.float32), b.astype(mx.float32)
        finite = mx.isfinite(a) & mx.isfinite(b)
        size = mx.where(finite, mx.abs(a), 0).max()
        return bool(mx.any(mx.where(finite, mx.abs(a - b), 0) > self.tolerance * (1e-3 + size)))


def _cut(array: mx.array, axis: int, part: slice) -> mx.array:
    return array[(slice(None),) * axis + (part,)]


def _broken(one: list[mx.array], _) -> bool:
    return any(bool(mx.any(mx.isnan(a) | (a == mx.inf))) for a in one if mx.issubdtype(a.dtype, mx.inexact))


def _shares(one: list[mx.array], _) -> bool:
    """Whether the last axis holds probabilities or their logarithms, over more entries than there are positions."""
    for a in one:
        if a.ndim == 3 and mx.issubdtype(a.dtype, mx.floating) and a.shape[-1] > 1:
            a = a.astype(mx.float32)
            sums = mx.stack([a.sum(-1), mx.logsumexp(a, -1) + 1])
            if bool(mx.any(mx.all(mx.abs(sums - 1) < 1e-3, axis=(1, 2)))) and bool(a.max() <= 1):
                return True
    return False


def _parameters(model: nn.Module) -> list[mx.array]:
    return list(by_path(model.parameters()).values())


def begins(model: nn.Module, probe: Probe, prepare: Callable[[int], None] = lambda nth: None) -> Place | None:
    """The innermost module, first in order of execution, whose input does not show the fault and whose output does;
    with its line, as far as its variables tell it. ``prepare`` is called before every pass, with 0 or 1."""

    def passes(take: Callable[[mx.array], Any]) -> list[Any]:
        taken = []
        for nth, ids in enumerate((probe.one, probe.two)):
            prepare(nth)
            taken.append(take(mx.array(ids)))
        return taken

    one, two = passes(lambda ids: calls(model, ids))
    sound: dict[int, Call] = {}  # calls within which something is not lost yet, and the last one that had it
    for index, (a, b) in enumerate(zip(one, two, strict=False)):
        if a.module is not b.module:
            return None
        before, after = probe.shows(a.before, b.before), probe.shows(a.after, b.after)
        if after and (not before or id(a) in sound):
            nth = sum(call.module is a.module for call in one[:index])
            traces = passes(lambda ids, call=a, nth=nth: steps(model, call, nth, ids))
            line = _line(traces, probe, not before)
            if line is None and id(a) in sound and sound[id(a)].lines:  # its result goes nowhere
                line = sound[id(a)].lines[-1]
            return place_of(model, a, line)
        if probe.lost and not after:
            sound |= {id(call): a for call in a.within()}
    return None


def place_of(model: nn.Module, call: Call, line: Line | None = None) -> Place | None:
    """A call as a place: this line of it, or where its code begins, or where it is made if it is a library's."""
    if line is None:
        code = getattr(type(call.module).__call__, "__code__", None)
        own = code is not None and of_model(code.co_filename)
        line = line_of(code) if own else call.lines[-1] if call.lines else None
    return place(line, name_of(model, call.module))


def name_of(model: nn.Module, module: nn.Module) -> str | None:
    """The dotted path of a module, None for the model itself."""
    return next((name for name, other in model.named_modules() if other is module), None) or None


def _line(traces: list[list[Step]], probe: Probe, clean: bool) -> Line | None:
    if probe.lost:
        return _lost(traces, probe, clean)
    mask = _open_mask(traces[0], probe.one.shape[1]) if probe.masked else None
    return mask or _enters(traces, probe)


def _open_mask(trace: list[Step], length: int) -> Line | None:
    """The first line whose mask, the same for all rows and heads and of two values or one, does not tell what follows a
    place from all the rest; None where the last mask does."""
    line = None
    for here, held in trace:
        for array in (a for found in held.values() for a in found if a.shape[-2:] == (length, length)):
            pairs = np.array(array.astype(mx.float32)).reshape(-1, length, length)
            if (pairs == pairs[:1]).all() and len(np.unique(pairs[0])) <= 2:
                past = np.tri(length, dtype=bool)
                sides = set(pairs[0][past]), set(pairs[0][~past])
                line = (line or here) if sides[0] & sides[1] else None
    return line


def _enters(traces: list[list[Step]], probe: Probe) -> Line | None:
    """The line at which the fault enters."""
    line = None
    for here, a, b in _together(traces):
        shown = _shown(probe, a, b)
        # Scores of all pairs know all tokens; what counts is whether they still do when they are used.
        pairs = all(array.shape.count(probe.one.shape[1]) > 1 for name in shown for array in a[name])
        if shown and (line is None or pairs):
            line = here
        if shown and not pairs:
            break
    return line


def _lost(traces: list[list[Step]], probe: Probe, clean: bool) -> Line | None:
    """The line after which every variable shows the fault; ``clean``: something was sound before the first line."""
    line = None
    for here, a, b in _together(traces):
        before, clean = clean, len(_shown(probe, a, b)) < len(a)
        if clean:
            line = None
        elif before:
            line = here
    return line


def _together(traces: list[list[Step]]) -> Iterator[tuple[Line, Variables, Variables]]:
    """The variables of two passes line by line, as long as they go the same way."""
    for (here, a), (there, b) in zip(*traces, strict=False):
        if here != there:
            return
        yield here, a, b


def _shown(probe: Probe, a: Variables, b: Variables) -> list[str]:
    """The variables that show the fault."""
    return [name for name in a if name in b and probe.shows(a[name], b[name])]
