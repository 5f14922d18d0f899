"""The batch of a loss that makes the logits itself, of what a part of its model returns, as losses in chunks do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map

from mlxstories.errors import StoriesError
from mlxstories.ladder.bench.arrays import first_of
from mlxstories.ladder.bench.loss.objective import factors_of_logits
from mlxstories.ladder.capture.copies import host, leaves, scalar, seen_by, whole
from mlxstories.ladder.capture.hooks import GradientCall
from mlxstories.ladder.random_states import put_random_key

_CELLS = 2**16  # of an array that may be a batch
_CLOSE = 1e-4  # of the loss, in float32
_CLOSE_IN_16_BITS = 1e-2

Found = tuple[np.ndarray, np.ndarray, np.ndarray, int]
"""Inputs, targets and mask [B, T], and the size of the vocabulary."""


def beside(call: GradientCall, key: mx.array) -> Found:
    """The inputs, targets and mask by which the loss is the cross-entropy of the model's own logits.

    The weights are moved for a while, for at first all tokens may be as likely. If nothing is found, the loss may have
    left out a factor of these logits: then its values on weights that are moved twice are theirs with one factor.

    Args:
        key: the random state in which the loss was taken.

    Raises:
        StoriesError: no such arrays are found.
    """
    kept = call.model.parameters()
    moved = [tree_map(_moved, kept) for _ in range(2)]
    try:
        loss = _loss(call, moved[0], key)
        found = _fitting(call, moved[:1], key, lambda nats: _apart(nats[0](1.0), loss))
        if not found:
            other = _loss(call, moved[1], key)
            found = _fitting(call, moved, key, lambda nats: _scaled(nats, loss, other))
    finally:
        call.model.update(kept)
    if not found:
        raise StoriesError("its loss does not call the model on token ids")
    return min(found, key=lambda one: one[0])[1]


def _fitting(
    call: GradientCall, moved: list[Any], key: mx.array, apart: Callable[[list[Callable]], float]
) -> list[tuple[float, Found]]:
    """What of the loss's arrays fits, and how far apart its value is."""
    seen = [array for _, array in leaves([call.args, call.kwargs, seen_by(call.function)])]
    arrays = [host(array) for array in seen if array.ndim in (1, 2) and array.size <= _CELLS]
    rows = [array for array in arrays if whole(array) and array.ndim == 2 and array.shape[1] > 1]
    found = []
    for inputs in (cut for array in rows for cut in (array, array[:, :-1])):
        with suppress(Exception):  # it may be no ids of this model's
            logits = [_logits(call, weights, inputs, key) for weights in moved]
            close = _CLOSE if logits[0].dtype == mx.float32 else _CLOSE_IN_16_BITS
            for targets, mask in _pairs(inputs.shape, rows, arrays):
                far = apart([_nats(one, targets, mask) for one in logits])
                if far < close:
                    found.append((far, (inputs.astype(np.int64), targets, mask, logits[0].shape[-1])))
    return found


def _loss(call: GradientCall, weights: Any, key: mx.array) -> float:
    call.model.update(weights)
    put_random_key(key)
    return float(scalar(call.function(*call.args, **call.kwargs)))


def _logits(call: GradientCall, weights: Any, inputs: np.ndarray, key: mx.array) -> mx.array:
    call.model.update(weights)
    put_random_key(key)
    return first_of(call.model(mx.array(inputs.astype(np.int32))))


def _scaled(nats: list[Callable], loss: float, other: float) -> float:
    """How far apart they are on other weights, by a factor with which they are one on the first."""
    factors = factors_of_logits(nats[0], loss)
    return min((_apart(nats[1](times), other) for times in factors), default=np.inf)


def _apart(nats: float, loss: float) -> float:
    return abs(nats - loss) / max(1.0, abs(loss))


def _nats(logits: mx.array, targets: np.ndarray, mask: np.ndarray) -> Callable[[float], float]:
    """The mean cross-entropy of logits times a factor."""
    wanted, counted = mx.array(np.maximum(targets, 0)), mx.array(mask)
    return lambda times: float(
        (nn.losses.cross_entropy(times * logits, wanted) * counted).sum() / counted.sum()
    )


def _pairs(
    shape: tuple, rows: list[np.ndarray], arrays: list[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What may be targets and a mask [B, T] for inputs of this shape."""

    def fitting(several):
        for array in several:
            yield from (cut for cut in (array, array[:, 1:]) if cut.shape == shape)

    masks = [array for array in arrays if array.ndim == 2 and array.any() and set(np.unique(array)) <= {0, 1}]
    masks += [mask for array in arrays if whole(array) for mask in _spanned(array, shape)]
    for targets in fitting(rows):
        targets = targets.astype(np.int64)
        for mask in ((targets >= 0), *fitting(masks)):
            yield targets, mask.astype(np.float32)


def _spanned(array: np.ndarray, shape: tuple) -> Iterator[np.ndarray]:
    """The masks [B, T] that lengths [B], or first and last cells [B, 2] counted from 1, stand for."""
    if array.shape not in (shape[:1], (shape[0], 2)):
        return
    first, last = (np.zeros_like(array), array) if array.ndim == 1 else array.T
    cell = np.arange(1, shape[1] + 1)
    begun = cell >= first[:, None]
    for mask in (begun & (cell <= last[:, None]), begun & (cell < last[:, None])):
        if mask.any():
            yield mask


def _moved(array: mx.array) -> mx.array:
    if not mx.issubdtype(array.dtype, mx.floating):
        return array
    size = 0.5 * mx.sqrt(mx.square(array.astype(mx.float32)).mean()) + 0.02
    return (array + size * mx.random.normal(array.shape)).astype(array.dtype)
