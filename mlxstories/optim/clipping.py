"""Gradient clipping."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map

from mlxstories.backend import kernels
from mlxstories.bounds import check_number
from mlxstories.optim.stacks import alike, stacks
from mlxstories.trees import by_path


def clip_by_global_norm(gradients, max_norm: float):
    """Scale a tree of gradients so that its L2 norm is at most ``max_norm`` (Pascanu et al. 2013, alg. 1).

    Norm and scaling are float32; each gradient keeps its type. Zero gradients stay zero, and a norm that is
    not finite is returned as it is, with gradients that are not finite either, for the caller to see.

    Returns:
        The scaled gradients and the norm before scaling, float32 [].
    """
    norm = global_norm(gradients)
    return scaled(gradients, clip_factor(norm, max_norm)), norm


def parameter_norms(gradients) -> mx.array:
    """The L2 norm of each gradient of a tree, float32 [P], in the order of ``tree_flatten``."""
    leaves = [gradient.astype(mx.float32) for gradient in by_path(gradients).values()]
    if not kernels.copies_pay():
        return mx.sqrt(mx.stack([mx.square(leaf).sum() for leaf in leaves]))
    order, sums = [], []
    for indices, stack in stacks(leaves):
        order += indices
        sums.append(mx.square(stack).reshape(len(indices), -1).sum(axis=1))
    return mx.sqrt(mx.concatenate(sums)[mx.array(np.argsort(order))])


def global_norm(gradients, count: mx.array | float = 1.0) -> mx.array:
    """The L2 norm of a tree of gradients that are sums over ``count`` tokens, float32 [].

    On a GPU the squares of all gradients of one shape are added in one kernel and reduced once, without a copy.
    """
    if not kernels.copies_pay():
        return mx.linalg.norm(parameter_norms(gradients) / count)
    leaves = [gradient.astype(mx.float32) for gradient in by_path(gradients).values()]
    sums = (_added([mx.square(leaves[index]) for index in indices]).sum() for indices in alike(leaves))
    return mx.sqrt(_added(list(sums))) / count


def _added(arrays: list[mx.array]) -> mx.array:
    """Their sum, in pairs: `mx.compile` cuts a kernel after a chain of 11 operations."""
    half = len(arrays) // 2
    return _added(arrays[:half]) + _added(arrays[half:]) if half else arrays[0]


def clip_factor(norm: mx.array, max_norm: float) -> mx.array:
    """What brings a gradient of this norm to at most ``max_norm``."""
    check_number("max_norm", max_norm, above=0)
    return max_norm / mx.maximum(norm, max_norm)


def scaled(gradients, factor: mx.array):
    """The tree times a float32 scalar, each gradient in its own type."""
    return tree_map(lambda g: (g.astype(mx.float32) * factor).astype(g.dtype), gradients)
