"""What a model is trained and evaluated on."""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx
import numpy as np

from mlxstories.data.packing import Rows


class Batch(NamedTuple):
    """B rows of T tokens and what follows each of them.

    Attributes:
        inputs: int32 [B, T], token ids.
        targets: int32 [B, T]; ``targets[:, t]`` is the token after ``inputs[:, t]``.
        mask: float32 [B, T], 1.0 on real tokens and 0.0 on padding.
    """

    inputs: mx.array
    targets: mx.array
    mask: mx.array


def batch_of(rows: Rows, index: int, size: int) -> Batch:
    """The ``index``-th batch of ``size`` rows; the last one is filled up with empty, masked rows."""
    part = slice(index * size, (index + 1) * size)
    missing = ((0, size - len(rows.inputs[part])), (0, 0))
    return Batch(*(mx.array(np.pad(a[part], missing)) for a in (rows.inputs, rows.targets, rows.mask)))
