"""From a finding's ``where`` (a part of the subject, or a parameter) to a file, a line and a module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.findings import NOTE, Finding, Place
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.arrays import put
from mlxstories.ladder.bench.samples import probe_batch, sample
from mlxstories.ladder.bench.step.optimizers import unusable_schedule
from mlxstories.ladder.patches import Patches
from mlxstories.ladder.where import (
    arithmetic,
    backward,
    batching,
    forward,
    function_lines,
    gradcheck,
    stop_gradient,
)
from mlxstories.ladder.where.calls import calls, steps
from mlxstories.ladder.where.dropped import dropped
from mlxstories.ladder.where.places import Line, class_line, defined, place
from mlxstories.trees import by_path

_KINDS = {
    "future-leak": ("future",),
    "batch-leak": ("rows", "number"),
    "length-dependent": ("length",),
    "input-blind": ("own",),
    "not-finite": ("finite",),
    "not-repeatable": ("repeats",),
    "double-softmax": ("softmax",),
}
"""The probes that follow a fault of the model to where it begins."""

_MIXING = ("context-cut", "input-blind", "position-blind")  # lie where positions learn of each other
_CUT = ("dead-parameters", "gradient-mismatch")
_ARITHMETIC = ("not-finite", "loss-sign")  # of an optimiser's update
_BATCHES = ("train_batches", "val_batches")
_SLOPES = ("vanishing-gradient", "exploding-gradient")


def located(bench: Bench, finding: Finding) -> Finding:
    """The finding with ``where`` a `Place`, if a line is known."""
    where = finding.where
    if not isinstance(where, str) or finding.severity == NOTE:
        return finding
    try:
        found = _in_file(where) or _inner(bench, finding.code, where) or _place(bench, finding.code, where)
    except Exception:  # the subject's own code, called in ways that it need not bear: no line then
        return finding
    return replace(finding, where=found) if found is not None else finding


def _in_file(where: str) -> Place | None:
    file, colon, line = where.rpartition(":")
    return Place.at(file, int(line)) if colon and line.isdigit() else None


def _inner(bench: Bench, code: str, where: str) -> Place | None:
    """A line within an optimiser's update, its schedule, or a loss."""
    if where == "optimizer" and code == "subject-error" and (found := unusable_schedule(bench.optimizer())):
        return place(defined(found.schedule), "optimizer")
    if where == "optimizer" and code in _ARITHMETIC:
        return place(_updated(bench, code))
    return _in_loss(bench) if where == "loss, cut off" else None


def _place(bench: Bench, code: str, where: str) -> Place | None:
    part = where.partition(",")[0].partition("(")[0]
    part = {"train": "train_batches", "val": "val_batches"}.get(part, part)
    if part == "model":
        return _in_model(bench, code)
    if hasattr(bench.subject, part):
        function = getattr(bench.subject, part)
        line = (
            batching.made(bench, code, part)
            if part in _BATCHES
            else function_lines.function_line(bench, code, part)
        )
        return place(line or (defined(function) if callable(function) else None), part)
    model = bench.model()
    if code in _SLOPES:
        return backward.steepest(model, _ids(bench), grows=code == "exploding-gradient")
    if part not in by_path(model.parameters()):
        return _of_module(model, part)
    if code in _CUT:
        found = _without_effect(bench, part) if code == "dead-parameters" else None
        found = found or backward.cut_off(model, _ids(bench), part)
        line = stop_gradient.in_model(model, _ids(bench), part)
        return place(line, (found or {}).get("module")) if line else found
    if code == "not-finite":
        return backward.broken(model, _ids(bench), part)
    if code == "backward-mismatch" and (found := gradcheck.differs(bench.noisy(), _ids(bench))):
        return found
    found = _without_effect(bench, part) if code == "without-effect" else None
    return found or backward.assigned(model, part)


def _updated(bench: Bench, code: str) -> Line | None:
    """Where the user's own optimiser goes wrong, or ends its update."""
    if code == "not-finite" and (line := arithmetic.breaks(bench)):
        return line
    return arithmetic.ends(bench)


def _in_loss(bench: Bench) -> Place | None:
    model, batch = bench.model(), probe_batch(bench, 0)
    return place(stop_gradient.in_loss(lambda: bench.loss(model, batch)), "loss")


def _of_module(model: nn.Module, path: str) -> Place | None:
    """Where a module computes, or where it is made, if it is a library's."""
    module = dict(model.named_modules()).get(path)
    if module is None:
        return None
    line = defined(type(module).__call__)
    return place(line, path) if line else backward.assigned(model, f"{path}.weight")


def _ids(bench: Bench) -> np.ndarray:
    return np.maximum(sample(bench).inputs[:2], 0).astype(np.int32)


def _in_model(bench: Bench, code: str) -> Place | None:
    found = next((p for kind in _KINDS.get(code, ()) if (p := _followed(bench, kind))), None)
    if found is None and code in _MIXING:
        found = _positions(bench) if code == "position-blind" else None
        found = found or dropped(_settled(bench), _ids(bench)) or _followed(bench, "past")
    if found is None and code in _ELSEWHERE:
        found = _ELSEWHERE[code](bench)
    return found or place(class_line(type(bench.model())))


def _settled(bench: Bench) -> nn.Module:
    """The model in evaluation mode, with noise on its weights, so that weights of 0 hide nothing."""
    model = bench.noisy()
    model.eval()
    return model


def _followed(bench: Bench, kind: str) -> Place | None:
    """Where the fault begins in the model as it is, with noise on its weights, or in training mode."""
    makers: tuple[Callable[[], nn.Module], ...] = (bench.model, bench.noisy, bench.noisy)
    for make, training in zip(makers, (False, False, True), strict=True):
        model = make()
        model.train(training)

        def prepare(nth: int) -> None:
            if nth == 0 or kind != "repeats":  # the second pass draws other numbers then
                bench.seed_all(0)

        if found := _begins(bench, kind, model, prepare):
            return found
    return None


def _begins(bench: Bench, kind: str, model: nn.Module, prepare: Callable[[int], None]) -> Place | None:
    inputs = sample(bench).inputs
    for whole in (False, True):  # a short row first, which not every model takes
        try:
            found = forward.begins(model, forward.probe_of(kind, inputs, model, whole=whole), prepare)
        except (ValueError, IndexError):
            continue
        if found is not None:
            return found
    return None


def _without_effect(bench: Bench, path: str) -> Place | None:
    """Where a change of a parameter is lost, on its way to the logits."""
    model = bench.noisy()
    kept = by_path(model.parameters())[path]

    def prepare(nth: int) -> None:
        bench.seed_all(0)
        put(model, {path: kept if nth == 0 else kept[::-1] + 1})

    model.eval()
    return _begins(bench, "weights", model, prepare)


def _unturned(bench: Bench) -> Place | None:
    """Where it stops making a difference, on the way to the logits, whether MLX's rotations are applied."""
    model, real, turned = _settled(bench), mx.fast.rope, True

    def prepare(nth: int) -> None:
        nonlocal turned
        bench.seed_all(0)
        turned = nth == 0

    with Patches() as patches:
        patches.replace(mx.fast, "rope", lambda x, *args, **kw: real(x, *args, **kw) if turned else x)
        return _begins(bench, "weights", model, prepare)


def _end(bench: Bench) -> Place | None:
    """The line that returns the logits."""
    model, ids = bench.model(), mx.array(_ids(bench))
    lines = [line for line, _ in steps(model, calls(model, ids)[-1], 0, ids)]
    return place(lines[-1]) if lines else None


def _positions(bench: Bench) -> Place | None:
    """The call that is given positions, which are the same whatever the tokens: integers made in the model."""
    model, ids = bench.model(), _ids(bench)
    one, two = (calls(model, mx.array(tokens)) for tokens in (ids, ids[:, ::-1].copy()))
    for a, b in zip(one, two, strict=False):
        whole = [i for i, array in enumerate(a.before) if mx.issubdtype(array.dtype, mx.integer)]
        if whole and all(bool(mx.array_equal(a.before[i], b.before[i])) for i in whole) and a.lines:
            return place(a.lines[-1], forward.name_of(model, a.module))
    return None


def _loudest(bench: Bench) -> Place | None:
    """The innermost module whose output is largest relative to its input; an embedding's input counts as ones."""
    model = bench.model()
    best, found = 0.0, None
    whole = calls(model, mx.array(_ids(bench)))
    parents = {id(call.parent) for call in whole if call.parent}
    for call in whole:
        if id(call) in parents or not call.after:
            continue
        sizes = [_size(a) for a in call.before if mx.issubdtype(a.dtype, mx.floating)]
        ratio = _size(call.after[0]) / max(sizes[0] if sizes else 1.0, 1e-6)
        if ratio > best:
            best, found = ratio, call
    if found is not None and best > 3:
        return backward.assigned(model, f"{forward.name_of(model, found.module)}.weight")
    matrices = {name: array for name, array in by_path(model.parameters()).items() if array.ndim == 2}
    loud = max(
        matrices, key=lambda name: _size(matrices[name]) * matrices[name].shape[-1] ** 0.5, default=None
    )
    return backward.assigned(model, loud) if loud else None


def _size(array: mx.array) -> float:
    array = array.astype(mx.float32)
    return float(mx.sqrt(mx.mean(mx.square(array))))


_ELSEWHERE = {"bad-initialization": _loudest, "bounded-logits": _end, "without-effect": _unturned}
"""How else a fault of the model is found."""
