"""Gradient clipping."""

from __future__ import annotations

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map

from mlxstories.optim.checks import check_number


def clip_by_global_norm(gradients, max_norm: float):
    """Scale a tree of gradients so that its L2 norm is at most ``max_norm`` (Pascanu et al. 2013, alg. 1).

    Norm and scaling are float32; each gradient keeps its type. Zero gradients stay zero, and a norm that is
    not finite is returned as it is, with gradients that are not finite either, for the caller to see.

    Returns:
        The scaled gradients and the norm before scaling, float32 [].
    """
    check_number("max_norm", max_norm, above=0)
    norms = [mx.linalg.norm(gradient.astype(mx.float32)) for _, gradient in tree_flatten(gradients)]
    norm = mx.linalg.norm(mx.stack(norms))
    scale = max_norm / mx.maximum(norm, max_norm)
    return tree_map(lambda g: (g.astype(mx.float32) * scale).astype(g.dtype), gradients), norm
