"""Gradient clipping."""

from __future__ import annotations

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map

from mlxstories.checks import check_number


def clip_by_global_norm(gradients, max_norm: float):
    """Scale a tree of gradients so that its L2 norm is at most ``max_norm`` (Pascanu et al. 2013, alg. 1).

    Norm and scaling are float32; each gradient keeps its type. Zero gradients stay zero, and a norm that is
    not finite is returned as it is, with gradients that are not finite either, for the caller to see.

    Returns:
        The scaled gradients and the norm before scaling, float32 [].
    """
    norm = mx.linalg.norm(parameter_norms(gradients))
    return scaled(gradients, clip_factor(norm, max_norm)), norm


def parameter_norms(gradients) -> mx.array:
    """The L2 norm of each gradient of a tree, float32 [P], in the order of ``tree_flatten``."""
    squares = [mx.square(gradient.astype(mx.float32)).sum() for _, gradient in tree_flatten(gradients)]
    return mx.sqrt(mx.stack(squares))


def clip_factor(norm: mx.array, max_norm: float) -> mx.array:
    """What brings a gradient of this norm to at most ``max_norm``."""
    check_number("max_norm", max_norm, above=0)
    return max_norm / mx.maximum(norm, max_norm)


def scaled(gradients, factor: mx.array):
    """The tree times a float32 scalar, each gradient in its own type."""
    return tree_map(lambda g: (g.astype(mx.float32) * factor).astype(g.dtype), gradients)
