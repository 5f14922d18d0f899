"""The one place that knows which device it runs on.

Importing it puts a fast BLAS under MLX where that helps.
"""

from __future__ import annotations

import mlx.core as mx

from mlxstories import blas

blas.install()


def swiglu(gate: mx.array, up: mx.array) -> mx.array:
    """``silu(gate) * up``, elementwise (Shazeer 2020)."""
    return gate * mx.sigmoid(gate) * up


def gelu(x: mx.array) -> mx.array:
    """The tanh form of GELU (Hendrycks and Gimpel 2016), written as ``x sigmoid(2u)``."""
    return x * mx.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
