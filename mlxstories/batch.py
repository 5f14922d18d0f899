"""What a model is trained and evaluated on."""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx
import numpy as np

from mlxstories.backend import kernels
from mlxstories.data.packing import Rows

SHARE = 3e7  # parameters times tokens that are worth a thread of their own: about 5 ms of one


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


def shares(batch: Batch, parameters: int) -> list[tuple[Batch, mx.Stream]]:
    """The rows of a batch in equal parts, one for each stream, as far as they divide and a model of so many
    parameters makes them worth it."""
    streams, rows = kernels.streams(), len(batch.inputs)
    most = min(len(streams), max(1, int(parameters * batch.inputs.size / SHARE)))
    count = max(n for n in range(1, most + 1) if rows % n == 0)
    parts = zip(*(mx.split(array, count) for array in batch), strict=True)
    return [(Batch(*part), stream) for part, stream in zip(parts, streams, strict=False)]
