"""The innermost module whose own backward pass is not the derivative of what it computes."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.findings import Place
from mlxstories.ladder.bench.arrays import central_difference, first_of
from mlxstories.ladder.where.calls import Call, calls
from mlxstories.ladder.where.forward import place_of

_STEP = 0.01  # of the input's size
_APART = 0.2  # of the derivative along a random direction
_DIRECTIONS = 4


def differs(model: nn.Module, ids: np.ndarray) -> Place | None:
    """The first module, in the order of execution, whose backward pass differs from differences of its forward pass, in
    evaluation mode."""
    model.eval()
    return next((place_of(model, call) for call in calls(model, mx.array(ids)) if _differs(call)), None)


def _differs(call: Call) -> bool:
    """Asked of the module's first input and output, by calling it again."""
    given = call.args[0] if call.args else None
    if not isinstance(given, mx.array) or given.dtype != mx.float32 or not call.after:
        return False
    rng = np.random.default_rng(3)

    def drawn(like: mx.array) -> mx.array:
        return mx.array(rng.standard_normal(like.shape, dtype=np.float32))

    # A norm's derivative differs along its own output and input most, which nothing random meets.
    first = call.after[0]
    weights = drawn(first) + first / mx.maximum(mx.sqrt(first.square().mean()), 1e-6)

    def answer(x: mx.array) -> mx.array:
        out = call.module(x, *call.args[1:], **call.kwargs)
        return (first_of(out) * weights).sum()

    slope = mx.grad(answer)(given)
    size = float(mx.sqrt(given.square().mean()))
    apart = []
    for _ in range(_DIRECTIONS):
        along = size * drawn(given) + given
        taken = central_difference(lambda by, along=along: float(answer(given + by * along)), _STEP)
        apart.append(taken - float((slope * along).sum()))
    expected = size * float(mx.linalg.norm(slope))
    return bool(np.sqrt(np.mean(np.square(apart))) > _APART * expected)
