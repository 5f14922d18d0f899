"""Figures of a training step that cost little: gradient norms by block, and a few entries of the weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.trees import by_path

_ENTRIES = 32  # of each weight that are compared between updates


@dataclass
class Figures:
    """One update in figures, on the host.

    Attributes:
        step: updates so far, this one included.
        loss: of its last batch, or None where it was not seen.
        norms: norm of the gradient by block, in the order of the parameters; empty in a compiled step.
        rate: learning rate, or None where it is not one number.
        weights: some entries of every weight, before the update.
        ids: the token ids of its batch, or None.
    """

    step: int
    loss: float | None = None
    norms: dict[str, float] = field(default_factory=dict)
    rate: float | None = None
    weights: np.ndarray | None = None
    ids: np.ndarray | None = None

    @property
    def norm(self) -> float | None:
        """Norm of the whole gradient."""
        return float(np.sqrt(sum(norm**2 for norm in self.norms.values()))) if self.norms else None


def block(path: str) -> str:
    """The block that a parameter belongs to: ``layers.3`` of ``layers.3.attention.query.weight``."""
    parts = path.split(".")
    number = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    return ".".join(parts[: number + 1]) if number is not None else parts[0]


def squares(gradients: Any) -> dict[str, mx.array]:
    """Sum of squares by block, not yet evaluated."""
    sums: dict[str, mx.array] = {}
    for path, gradient in by_path(gradients).items():
        if isinstance(gradient, mx.array) and mx.issubdtype(gradient.dtype, mx.floating):
            total = mx.square(gradient.astype(mx.float32)).sum()
            name = block(path)
            sums[name] = sums[name] + total if name in sums else total
    return sums


def entries(model: nn.Module) -> mx.array | None:
    """Some entries of every trainable weight in one row, not yet evaluated."""
    parts = [
        array.reshape(-1)[:_ENTRIES].astype(mx.float32)
        for array in by_path(model.trainable_parameters()).values()
        if isinstance(array, mx.array) and mx.issubdtype(array.dtype, mx.floating) and array.size
    ]
    return mx.concatenate(parts) if parts else None
