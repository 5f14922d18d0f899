"""Nested parameters, gradients and states as one flat table."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten


def by_path(tree: Any) -> dict[str, mx.array]:
    """The arrays of ``model.parameters()``, of gradients or of an optimiser's state, by their dotted paths."""
    return dict(tree_flatten(tree))
