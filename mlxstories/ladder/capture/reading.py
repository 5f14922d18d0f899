"""What is what in a loss, found by measurement: the model's input, and the gradient of the loss at its logits."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map

from mlxstories.errors import StoriesError
from mlxstories.ladder.bench.arrays import changed, first_of
from mlxstories.ladder.capture.copies import host, leaves, scalar, seen_by, whole
from mlxstories.ladder.capture.hooks import GradientCall
from mlxstories.ladder.patches import Patches
from mlxstories.ladder.random_states import put_random_key, random_key
from mlxstories.ladder.where.places import Line, stack
from mlxstories.model import Transformer

_COUNTED = 1e-3  # of the largest gradient at a cell: less does not count
_CELLS = 2**16  # of an array that may be a batch


@dataclass
class Reading:
    """One batch as the loss sees it: int64 [B, T] inputs and targets, float32 [B, T] mask, and the loss."""

    inputs: np.ndarray
    targets: np.ndarray
    mask: np.ndarray
    value: float
    vocab: int
    line: Line | None = None  # of the cross-entropy, or of the model's call where that is written by hand
    classes: int | None = None  # of the cross-entropy, where it is MLX's


@contextmanager
def outputs(model: nn.Module, change: Callable = lambda out: out, *, inside: bool = False) -> Iterator[list]:
    """Inside, collect (token ids, output, lines, classes of the cross-entropy) of this module's calls, and pass its
    logits through ``change``: where it returns them, or with ``inside`` where the cross-entropy takes them, for models
    that return their loss."""
    calls: list[tuple[Any, mx.array, list[Line], int | None]] = []
    real, at = type(model).__call__, []

    def call(module, *args, **kwargs):
        out = real(module, *args, **kwargs)
        ids = next((a for _, a in leaves([*args, *kwargs.values()]) if whole(a)), None)
        logits = first_of(out)
        if module is not model or ids is None or not isinstance(logits, mx.array):
            return out
        calls.append((ids, logits, at or stack(sys._getframe(1)), None))
        if inside:
            return out
        return changed(out, change)

    cross_entropy = nn.losses.cross_entropy

    def loss(logits, *args, **kwargs):
        at[:] = stack(sys._getframe(1))
        if calls:
            calls[0] = (*calls[0][:2], list(at), logits.shape[-1])
        return cross_entropy(change(logits) if inside else logits, *args, **kwargs)

    with Patches() as patches:
        patches.replace(nn.losses, "cross_entropy", loss)
        patches.replace(type(model), "__call__", call)
        yield calls


def read(call: GradientCall) -> Reading:
    """Read the batch of one gradient.

    Raises:
        StoriesError: the model is not called on [B, T] ids, does not return [B, T, V], or the loss ignores it.
    """
    key = random_key()

    def value(change=lambda out: out, inside=False):
        put_random_key(key)
        with outputs(call.model, change, inside=inside) as calls:
            return scalar(call.function(*call.args, **call.kwargs)).astype(mx.float32), calls

    def pushed(logits, inside):
        taken = []
        if inside:
            value(lambda out: taken.append(out) or out, inside)
        places = _places(taken[0], logits) if taken else slice(None)
        gradient = mx.grad(lambda shift: value(lambda out: _shifted(out, shift[:, places]), inside)[0])(
            mx.zeros(logits.shape)
        )
        return gradient, np.array(mx.abs(gradient).max(-1))

    try:
        loss, calls = value()
        if not calls and isinstance(call.model, Transformer):
            raise StoriesError(
                "its loss takes our own model's features, not its logits: `mlxstories debug RUN` examines such runs"
            )
        if not calls:
            return _read_beside(call, float(loss), key)
        ids, logits = host(calls[0][0]), calls[0][1]
        inside = logits.ndim != 3  # the model takes its loss itself, and returns that, or logits in a row
        if inside:
            logits = _logits_alone(call.model, calls[0][0])
        else:
            _ask_for_ids_alone(call.model, calls[0][0])
        if logits.ndim != 3 or logits.shape[:2] != ids.shape:
            raise StoriesError(
                f"its model returns {list(logits.shape)} for ids of shape {list(ids.shape)}, not logits [B, T, V]"
            )
        gradient, size = pushed(logits, inside)
        if not size.max() > 0:  # the model returns its loss beside the logits
            gradient, size = pushed(logits, True)
    finally:
        put_random_key(key)
    if not size.max() > 0:
        raise StoriesError("its loss does not depend on the logits that its model returns")
    # The gradient of a cross-entropy is p - 1 at the target and p elsewhere, whatever its sign and weight.
    targets = np.array(mx.argmax(mx.abs(gradient), axis=-1)).astype(np.int64)
    mask = (size > _COUNTED * size.max()).astype(np.float32)
    return Reading(
        ids.astype(np.int64),
        targets,
        mask,
        float(loss),
        logits.shape[-1],
        calls[0][2][-1] if calls[0][2] else None,
        calls[0][3],
    )


def _read_beside(call: GradientCall, value: float, key: mx.array) -> Reading:
    """Of a loss that makes the logits itself, of what a part of its model returns, as losses in chunks do: inputs,
    targets and mask are those by which its value is the cross-entropy of the model's own logits, on weights that are
    moved for a while, for at first all tokens may be as likely.

    Raises:
        StoriesError: no such arrays are found.
    """
    model, kept = call.model, call.model.parameters()
    seen = [array for _, array in leaves([call.args, call.kwargs, seen_by(call.function)])]
    arrays = [host(array) for array in seen if array.ndim == 2 and array.size <= _CELLS]
    rows = [array for array in arrays if whole(array) and array.shape[1] > 1]
    masks = [array for array in arrays if array.any() and set(np.unique(array)) <= {0, 1}]
    found = []
    try:
        model.update(tree_map(_moved, kept))
        put_random_key(key)
        loss = float(scalar(call.function(*call.args, **call.kwargs)))
        for inputs in (cut for array in rows for cut in (array, array[:, :-1])):
            with suppress(Exception):  # it may be no ids of this model's
                put_random_key(key)
                logits = first_of(model(mx.array(inputs.astype(np.int32))))
                for targets, mask in _pairs(inputs.shape, rows, masks):
                    nats = nn.losses.cross_entropy(logits, mx.array(np.maximum(targets, 0)))
                    apart = abs(float((nats * mx.array(mask)).sum() / mask.sum()) - loss)
                    if apart < (1e-4 if logits.dtype == mx.float32 else 1e-2) * max(1.0, abs(loss)):
                        found.append((apart, inputs.astype(np.int64), targets, mask, logits.shape[-1]))
    finally:
        model.update(kept)
    if not found:
        raise StoriesError("its loss does not call the model on token ids")
    _, inputs, targets, mask, vocab = min(found, key=lambda one: one[0])
    return Reading(inputs, targets, mask, value, vocab)


def _pairs(
    shape: tuple, rows: list[np.ndarray], masks: list[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What may be targets and a mask [B, T] for inputs of this shape."""

    def fitting(several):
        for array in several:
            yield from (cut for cut in (array, array[:, 1:]) if cut.shape == shape)

    for targets in fitting(rows):
        targets = targets.astype(np.int64)
        for mask in ((targets >= 0), *fitting(masks)):
            yield targets, mask.astype(np.float32)


def _moved(array: mx.array) -> mx.array:
    if not mx.issubdtype(array.dtype, mx.floating):
        return array
    size = 0.5 * mx.sqrt(mx.square(array.astype(mx.float32)).mean()) + 0.02
    return (array + size * mx.random.normal(array.shape)).astype(array.dtype)


def _places(taken: mx.array, logits: mx.array) -> slice:
    """Which places of a row a cross-entropy takes the logits of: all, or, where a model shifts its labels itself, all
    but the last or the first."""
    cuts = [cut for cut in (slice(None), slice(-1), slice(1, None)) if taken.size == logits[:, cut].size]
    return min(
        cuts,
        key=lambda cut: mx.abs(taken.reshape(logits[:, cut].shape) - logits[:, cut]).max().item(),
        default=slice(None),
    )


def _shifted(logits: mx.array, shift: mx.array) -> mx.array:
    if logits.size != shift.size:
        return logits
    # Where the model says nothing at all its loss can be read as well: the ladder says that it is not finite.
    return mx.where(mx.isnan(logits), 0, logits) + shift.reshape(logits.shape).astype(logits.dtype)


def _ask_for_ids_alone(model: nn.Module, ids: Any) -> None:
    """Raises a StoriesError where a model wants more, as one that translates does."""
    try:
        inspect.signature(type(model).__call__).bind(model, ids)
    except TypeError as error:
        raise StoriesError(f"its model cannot be asked about token ids alone: {error}") from error


def _logits_alone(model: nn.Module, ids: Any) -> mx.array:
    """What a model that returns its loss says of ids alone, as the ladder and decoding call it."""
    try:
        out = model(ids)
    except Exception as error:
        raise StoriesError(
            "its model returns its loss, and needs targets: call it on ids alone for logits"
        ) from error
    return first_of(out)
