"""What a model's norms make of noise."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from mlxstories.ladder.bench.bench import Bench, measurement

_SAME = 1e-3  # relative difference of what a norm makes of small and of large input


@dataclass(frozen=True)
class Norm:
    """What a norm makes of rows of noise.

    Attributes:
        varies: root mean square of what differs between rows.
        constant: of what all rows share.
    """

    varies: float
    constant: float


@measurement
def norms(bench: Bench) -> dict[str, Norm]:
    """The norms of a fresh model that have a shift beside their gain, by path."""
    model = bench.model()
    model.eval()
    shifted = [(name, module) for name, module in model.named_modules() if len(vectors(module)) > 1]
    found = ((name, _heard(module)) for name, module in shifted)
    return {name: norm for name, norm in found if norm is not None}


def scale_of(module: nn.Module) -> float | None:
    """Root mean square of what a norm makes of noise, less what it gives for any input; None for a module that is no
    norm."""
    norm = _heard(module)
    return None if norm is None else norm.varies


def _heard(module: nn.Module) -> Norm | None:
    arrays = vectors(module)
    if not arrays or weight_of(module) is None:
        return None
    noise = mx.random.normal((32, arrays[0].size), key=mx.random.key(3)).astype(arrays[0].dtype)
    try:
        small, large = module(noise), module(8 * noise)
        apart, size = float(mx.abs(large - small).max()), float(mx.abs(small).max())
    except Exception:  # of another kind
        return None
    if small.shape != noise.shape or apart > _SAME * size:
        return None
    small = small.astype(mx.float32)
    shared = small.mean(axis=0)
    return Norm(_size(small - shared), _size(shared))


def _size(array: mx.array) -> float:
    return float(mx.sqrt((array**2).mean()))


def weight_of(module: nn.Module) -> str | None:
    """The name of a norm's gain."""
    keys = [k for k, v in module.items() if isinstance(v, mx.array) and "bias" not in k]
    return keys[0] if keys else None


def vectors(module: nn.Module) -> list[mx.array]:
    """The arrays of a module that has vectors of one size alone; none of another module."""
    values = [v for v in module.values() if isinstance(v, mx.array)]
    alike = all(v.ndim == 1 and v.size == values[0].size > 1 for v in values)
    return values if alike and not module.children() else []
