"""Attention with a learned bias for each bucket of distances."""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn
from base import Attention, H, T

BUCKETS, EXACT = 16, 8


def bucket(back):
    """int32, of the shape of ``back``: distances below 8 have a bucket each, farther ones share them by logarithm, and
    what lies ahead has that of 0."""
    back = mx.maximum(back, 0)
    share = mx.log(mx.maximum(back, 1) / EXACT) / math.log(T / EXACT)
    wide = mx.minimum(EXACT + (share * (BUCKETS - EXACT)).astype(mx.int32), BUCKETS - 1)
    return mx.where(back < EXACT, back, wide)


class Bucketed(Attention):
    """Scores are raised by what is learned of the distance between query and key; no other positions."""

    sign = 1

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(BUCKETS, H)

    def turned(self, q, k, cache):
        return q, k

    def bias(self, queries, keys):
        back = mx.arange(keys - queries, keys)[:, None] - mx.arange(keys)
        return super().bias(queries, keys) + self.table(bucket(self.sign * back)).transpose(2, 0, 1)
