"""A model of single tokens on rows drawn at random, where nothing need be learned, and measurements that are given."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from tiny import ask

from mlxstories.ladder import Subject
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.verdict import Verdict

V, T, B, D = 17, 12, 4, 8


class Net(nn.Module):
    def __init__(self, middle: nn.Module | None = None):
        super().__init__()
        self.embed, self.head = nn.Embedding(V, D), nn.Linear(D, V)
        self.middle = nn.Identity() if middle is None else middle

    def __call__(self, tokens):
        return self.head(self.middle(self.embed(tokens)))


def rows(count: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, V, (count, T + 1))


def in_batches(table: np.ndarray, form=lambda w: (mx.array(w[:, :-1]), mx.array(w[:, 1:]))):
    return lambda seed: (form(table[i : i + B]) for i in range(0, len(table), B))


def batches(seed):
    return in_batches(rows(seed=seed))(seed)


def cross_entropy(model, batch):
    return nn.losses.cross_entropy(model(batch[0]), batch[1]).mean()


def bench(**fields) -> Bench:
    return Bench(Subject(**{"model": Net, "vocab_size": V, "train_batches": batches, **fields}))


def given(name: str, taken: dict, **fields) -> Verdict:
    """What a check says where these measurements were made."""
    on = bench(**fields)
    on.taken |= taken
    return ask(name, on)
