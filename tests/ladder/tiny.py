"""A tiny setup that learns, for tests of the ladder to break."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.batch import Batch
from mlxstories.ladder import Subject

V, T, B = 13, 16, 4


class Tiny(nn.Module):
    """Embedding, an average of the past (and of the future, as far as given), a head."""

    def __init__(self, future: float = 0.0):
        super().__init__()
        self.embed = nn.Embedding(V, 16)
        self.mix = nn.Linear(16, 16)
        self.head = nn.Linear(16, V)
        self.future = future

    def __call__(self, tokens):
        x = self.embed(tokens)
        ages = mx.arange(x.shape[1])[:, None] - mx.arange(x.shape[1])[None]
        weights = mx.where(ages >= 0, mx.exp(-ages.astype(mx.float32)), self.future)
        return self.head(x + mx.tanh(self.mix(weights @ x)))


def batches(seed, count=8):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        rows = np.cumsum(rng.integers(1, 3, (B, T + 1)), axis=1) % V
        yield Batch(mx.array(rows[:, :-1]), mx.array(rows[:, 1:]), mx.ones((B, T)))


def subject(**fields) -> Subject:
    return Subject(**{"model": Tiny, "vocab_size": V, "train_batches": batches, **fields})
