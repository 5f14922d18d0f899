"""What a model is trained and evaluated on."""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx


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
