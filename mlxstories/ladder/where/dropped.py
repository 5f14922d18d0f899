"""The call of a module whose result is not used, found by adding noise to results."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_map

from mlxstories.findings import Place
from mlxstories.ladder.where.calls import calls
from mlxstories.ladder.where.forward import name_of
from mlxstories.ladder.where.places import place

_TRIED = 48  # calls


def noisy(out):
    """The arrays of what a module returns, with noise as large as they are; from the same seed every time."""

    def add(array):
        if not isinstance(array, mx.array) or not mx.issubdtype(array.dtype, mx.floating):
            return array
        size = mx.sqrt(mx.mean(mx.square(array.astype(mx.float32)))) + 1e-3
        noise = np.random.default_rng(7).standard_normal(array.shape, dtype=np.float32)
        return (array.astype(mx.float32) + size * mx.array(noise)).astype(array.dtype)

    return tree_map(add, out)


def dropped(model: nn.Module, ids: np.ndarray) -> Place | None:
    """The line that calls a module with weights, not from within another such call, and whose result moves nothing that
    the model returns when noise is added to it."""
    tokens = mx.array(ids)
    seen = calls(model, tokens)
    weighty = [i for i, call in enumerate(seen[:-1]) if call.lines and tree_flatten(call.module.parameters())]
    for index in sorted(weighty, key=lambda i: len(list(seen[i].within())))[:_TRIED]:
        again = calls(model, tokens, lambda i, out, changed=index: noisy(out) if i == changed else out)
        pairs = zip(seen[-1].after, again[-1].after, strict=True)
        if all(bool(mx.array_equal(a, b, equal_nan=True)) for a, b in pairs):
            return place(seen[index].lines[-1], name_of(model, seen[index].module))
    return None
