"""Losses of logits, and parameters put back by path."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlxstories.ladder.patches import tokens_of
from mlxstories.trees import by_path

HALF = (mx.bfloat16, mx.float16)

Arrays = dict[str, mx.array]
"""By path."""


class Answers(nn.Module):
    """A model whose only parameter is its logits [B, T, V]; of shorter rows it returns the first places.

    It keeps the ids [B, T] that it was asked about last.
    """

    def __init__(self, logits: mx.array):
        super().__init__()
        self.logits = logits

    def __call__(self, *args, **kwargs):
        self._asked = tokens_of(args, kwargs)
        return self.logits[:, : self._asked.shape[1]]


def first_of(returned: Any) -> Any:
    """The logits or the loss in what a model or a loss function returns: the first of several, or ``logits``."""
    if isinstance(returned, (tuple, list)) and returned:
        return returned[0]
    if isinstance(returned, dict):
        return returned.get("logits", returned)
    return getattr(returned, "logits", returned)


def changed(returned: Any, change: Callable[[mx.array], mx.array]) -> Any:
    """What a model returned, its logits changed: all that it returned, the first of several, or its ``logits``."""
    if isinstance(returned, tuple) and hasattr(returned, "_fields"):
        return type(returned)(change(returned[0]), *returned[1:])
    if isinstance(returned, (tuple, list)):
        return type(returned)([change(returned[0]), *returned[1:]])
    if isinstance(returned, dict):
        return {**returned, "logits": change(returned["logits"])}
    if hasattr(returned, "logits"):
        new = copy(returned)
        new.logits = change(returned.logits)
        return new
    return change(returned)


def token_losses(logits: mx.array, targets: mx.array) -> tuple[mx.array, mx.array]:
    """Negative log-probability of each target in nats and whether the argmax hits it; [B, T] each."""
    logits = logits.astype(mx.float32)
    chosen = mx.take_along_axis(logits, targets[..., None], axis=-1).squeeze(-1)
    return mx.logsumexp(logits, axis=-1) - chosen, mx.argmax(logits, axis=-1) == targets


def masked_mean(model: nn.Module, batch) -> mx.array:
    """Mean cross-entropy of real tokens: the loss of a subject that brings none."""
    out = model(batch.inputs)
    losses, _ = token_losses(first_of(out), batch.targets)
    mask = (batch.mask > 0).astype(mx.float32)
    return (losses * mask).sum() / mx.maximum(mask.sum(), 1)


def full_precision(parameters: dict) -> bool:
    """Whether no array of a tree has 16 bits, with which rounding is a thousand times as coarse."""
    return all(a.dtype not in HALF for a in by_path(parameters).values())


def norm(arrays: dict[str, mx.array]) -> float:
    """Euclidean length of all arrays as one vector, in float32."""
    squares = [a.astype(mx.float32).square().sum() for a in arrays.values()]
    return float(sum(squares, mx.array(0.0)).sqrt())


def central_difference(value: Callable[[float], float], step: float) -> float:
    """The slope of ``value`` at 0, to the second order of ``step``."""
    return (value(step) - value(-step)) / (2 * step)


def put(model: nn.Module, arrays: dict[str, mx.array]) -> None:
    """Replace parameters by path.

    Raises:
        ValueError: the model has no parameter at one of them.
    """
    left = dict(arrays)
    model.update(_filled(model.parameters(), left, ()))
    if left:
        raise ValueError(f"the model has no parameter named {next(iter(left))}")
    mx.eval(model.parameters())


def _filled(tree, arrays: dict[str, mx.array], path: tuple[str, ...]):
    """A copy of the tree with ``arrays`` put in by path, each removed from the dictionary. It keeps the tree's form:
    `tree_unflatten` would turn a dictionary whose keys are digits into a list."""
    if isinstance(tree, dict):
        return {key: _filled(item, arrays, (*path, key)) for key, item in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_filled(item, arrays, (*path, str(i))) for i, item in enumerate(tree)]
    return arrays.pop(".".join(path), tree)


def between(before: mx.array, after: mx.array, factor: float) -> mx.array:
    """``before`` moved by ``factor`` times the way to ``after``, in float32. Integers, and entries that did not move
    (a mask's infinities), are those of ``after``."""
    if not mx.issubdtype(before.dtype, mx.floating):
        return after
    old, new = before.astype(mx.float32), after.astype(mx.float32)
    return mx.where(old == new, new, old + factor * (new - old)).astype(before.dtype)


def is_pattern(array: mx.array) -> bool:
    """Whether a matrix is a mask or the like, not weights: it has two values, or one value on one side of the diagonal.

    MLX counts every array among the parameters, even one that nobody means to train.
    """
    if array.ndim < 2 or array.size < 9:
        return False
    array = array.astype(mx.float32)
    low, high = array.min(), array.max()
    if bool(low == high):
        return False
    if bool(mx.all((array == low) | (array == high))):
        return True
    rows, columns = array.shape[-2:]
    if rows != columns or rows < 3:
        return False
    place = mx.arange(rows)
    above = place[:, None] < place
    return any(_one_value(array, side) for side in (above, above.T))


def _one_value(array: mx.array, where: mx.array) -> bool:
    low = mx.where(where, array, mx.inf).min()
    return bool(low == mx.where(where, array, -mx.inf).max())
