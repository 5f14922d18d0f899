"""What is what in a loss, found by measurement: the model's input, and the gradient of the loss at its logits."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.errors import StoriesError
from mlxstories.ladder.bench.arrays import changed, first_of
from mlxstories.ladder.capture.copies import host, leaves, scalar, whole
from mlxstories.ladder.capture.hooks import GradientCall
from mlxstories.ladder.capture.logits_beside import beside
from mlxstories.ladder.patches import Patches
from mlxstories.ladder.random_states import put_random_key, random_key
from mlxstories.ladder.where.places import Line, defined, stack
from mlxstories.model import Transformer

_COUNTED = 1e-3  # of the largest gradient at a cell: less does not count


@dataclass
class Reading:
    """One batch as the loss sees it: int64 [B, T] inputs and targets, float32 [B, T] mask, and the loss."""

    inputs: np.ndarray
    targets: np.ndarray
    mask: np.ndarray
    vocab: int
    value: float
    line: Line | None = None  # of the cross-entropy; where that is by hand of the model's call, or the loss
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
            return Reading(*beside(call, key), value=float(loss), line=defined(call.function))
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
        logits.shape[-1],
        float(loss),
        calls[0][2][-1] if calls[0][2] else None,
        calls[0][3],
    )


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
