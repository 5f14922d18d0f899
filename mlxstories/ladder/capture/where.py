"""The lines where findings of the ladder lie: in the loop, the loss, the optimiser's making, or inside the model."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.findings import Finding
from mlxstories.ladder.capture.copies import clone, leaves
from mlxstories.ladder.capture.patches import Patches
from mlxstories.ladder.capture.places import Line, Place, place
from mlxstories.ladder.capture.running import own_file
from mlxstories.ladder.diagnosis import Diagnosis

if TYPE_CHECKING:
    from mlxstories.ladder.capture.script import CapturedScript

_DATA = (
    "constant-batches",
    "targets-not-shifted",
    "targets-mismatched",
    "train-val-overlap",
    "token-out-of-range",
)
_LOSS = ("padding-in-loss", "loss-sign", "double-softmax", "wrong-loss", "gradient-mismatch")
_OPTIMIZER = (
    "learning-rate-too-small",
    "learning-rate-too-large",
    "weight-decay-too-large",
    "no-bias-correction",
    "warmup-too-long",
    "state-not-kept",
    "extreme-constants",
)
_UPDATE = ("clipping-too-tight", "no-update", "frozen-parameters")
_LEAKS = ("future-leak", "batch-leak")


def located(diagnosis: Diagnosis, script: CapturedScript) -> Diagnosis:
    """The diagnosis with ``where`` a `Place` wherever a line is known."""
    return replace(diagnosis, findings=[_located(finding, script) for finding in diagnosis.findings])


def _located(finding: Finding, script: CapturedScript) -> Finding:
    loop, code, found = script.loop, finding.code, None
    if isinstance(finding.where, Place):
        return finding
    if code in _LEAKS:
        found = leak(loop.snapshot, script.batches[0][0], rows=code == "batch-leak")
    elif code in _DATA:
        found = place(loop.seen.drawn)
    elif code in _LOSS:
        found = place(script.roles.first.line)
    elif code in _OPTIMIZER:
        found = place(loop.made)
    elif code in _UPDATE and loop.seen.updates:
        found = place(loop.seen.updates[0].line)
    if found is None:
        return finding
    if finding.where:
        found["module"] = str(finding.where)
    return replace(finding, where=found)


# --- inside the model ------------------------------------------------------------------------------


def leak(model: nn.Module, inputs: np.ndarray, *, rows: bool = False) -> Place | None:
    """The innermost module, first in order, whose input knows nothing of later tokens (or other rows) and whose
    output does; with its line, as far as its local variables tell it.
    """
    inputs = inputs[:2].astype(np.int32)
    changed, keep = inputs.copy(), inputs.shape[1] // 2
    if rows:
        changed[1] = np.roll(changed[1], 1)
    else:
        changed[:, keep:] = np.roll(changed[:, ::-1], 1, axis=1)[:, keep:]
    length = inputs.shape[1]

    def differs(a: mx.array, b: mx.array) -> bool:
        if a.shape != b.shape or a.ndim < 2 or a.size == 0:
            return False
        if rows:
            a, b = a[:1], b[:1]
        else:
            axis = next((i for i in range(1, a.ndim) if a.shape[i] == length), None)
            if axis is None:
                return False
            a, b = (mx.take(part, mx.arange(keep), axis=axis) for part in (a, b))
        a, b = a.astype(mx.float32), b.astype(mx.float32)
        return bool(mx.any(mx.abs(a - b) > 1e-5 * (1e-3 + mx.abs(a).max())))

    model = clone(model)
    model.eval()
    one, two = (_calls(model, mx.array(ids)) for ids in (inputs, changed))
    names = {id(module): name for name, module in model.named_modules()}
    for a, b in zip(one, two, strict=False):
        module, before, after = a
        if any(map(differs, after, b[2])) and not any(map(differs, before, b[1])):
            traces = [_locals(model, module, mx.array(ids)) for ids in (inputs, changed)]
            return place(_first_line(module, *traces, differs, length), names.get(id(module)) or None)
    return None


def _calls(model: nn.Module, ids: mx.array) -> list[tuple[nn.Module, list, list]]:
    """Every call of a module inside the model, the innermost first: its arrays before and after."""
    calls: list[tuple[nn.Module, list, list]] = []

    def watched(real: Callable) -> Callable:
        def call(module, *args, **kwargs):
            out = real(module, *args, **kwargs)
            before = [array for _, array in leaves([*args, *kwargs.values()])]
            calls.append((module, before, [array for _, array in leaves([out])]))
            return out

        return call

    with Patches() as patches:
        for cls in {type(module) for module in model.modules() if "__call__" in vars(type(module))}:
            patches.replace(cls, "__call__", watched(cls.__call__))
        model(ids)
    return calls


def _locals(model: nn.Module, module: nn.Module, ids: mx.array) -> list[tuple[int, dict[str, Any]]]:
    """The arrays that a module's first call assigns to its variables, line by line."""
    code, steps = type(module).__call__.__code__, []
    previous: dict[str, Any] = {}

    def trace(frame, event, _):
        nonlocal line
        now = {n: v for n, v in frame.f_locals.items() if isinstance(v, mx.array)}
        new = {n: v for n, v in now.items() if previous.get(n) is not v}
        if line is not None and new:
            steps.append((line, new))
        previous.update(now)
        line = frame.f_lineno
        return trace

    def enter(frame, event, _):
        own = frame.f_code is code and frame.f_locals.get(code.co_varnames[0]) is module
        return trace if own and not steps else None

    line, kept = None, sys.gettrace()
    sys.settrace(enter)
    try:
        model(ids)
    finally:
        sys.settrace(kept)
    return steps


def _first_line(module: nn.Module, one, two, differs, length: int) -> Line | None:
    code = type(module).__call__.__code__
    if not own_file(code.co_filename):
        return None
    line = None
    for (number, a), (_, b) in zip(one, two, strict=False):
        changed = [name for name in a if name in b and differs(a[name], b[name])]
        if not changed:
            continue
        # Scores of all pairs know all tokens; what counts is whether they still do when they are used.
        pairs = all(a[name].shape.count(length) > 1 for name in changed)
        if line is None or pairs:
            line = number
        if not pairs:
            break
    return Line(code.co_filename, line or code.co_firstlineno, code.co_name)
