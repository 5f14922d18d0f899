"""Layers that are called for nothing."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlxstories.findings import WARNING
from mlxstories.ladder import Subject
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.registry import CHECKS

V, T, B = 13, 16, 4


class Rotated(nn.Module):
    """Attention with rotated queries and keys."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(V, 16), nn.Linear(16, V)
        self.query, self.key = nn.Linear(16, 16), nn.Linear(16, 16)
        self.rope, self.gelu = nn.RoPE(16), nn.GELU()
        self.experts = [nn.Linear(16, 16) for _ in range(2)]

    def turned(self, x):
        return self.rope(x)

    def __call__(self, tokens):
        x = self.embed(tokens)
        scores = self.turned(self.query(x)) @ self.turned(self.key(x)).swapaxes(1, 2)
        mask = nn.MultiHeadAttention.create_additive_causal_mask(x.shape[1])
        return self.head(x + mx.softmax(scores + mask, axis=-1) @ x)


class RotationDropped(Rotated):
    def turned(self, x):
        self.rope(x)
        return x


class OneOfTwoDropped(Rotated):
    def __call__(self, tokens):
        x = self.embed(tokens)
        self.gelu(x)
        return self.head(x + self.gelu(x))


class ForTheLoss(Rotated):
    """A further output, which is no logit."""

    def __call__(self, tokens):
        return super().__call__(tokens), self.gelu(self.embed(tokens))


class ExpertNotChosen(Rotated):
    """One activation for both experts, the second of which no token chooses."""

    def __call__(self, tokens):
        x = self.embed(tokens)
        return self.head(x + sum(self.gelu(expert(x)) * (k == 0) for k, expert in enumerate(self.experts)))


def batches(seed):
    rng = np.random.default_rng(seed)
    for _ in range(8):
        rows = np.cumsum(rng.integers(1, 3, (B, T + 1)), axis=1) % V
        yield mx.array(rows[:, :-1]), mx.array(rows[:, 1:])


def asked(model):
    check = CHECKS["what layers return is used"]
    subject = Subject(model=model, vocab_size=V, train_batches=batches)
    return check.ask(Bench(subject, 0), check.gauges()).drafts


@pytest.mark.parametrize("model", [RotationDropped, OneOfTwoDropped])
def test_a_result_that_nobody_uses_is_told_with_its_line(model):
    (draft,) = asked(model)
    assert (draft.code, draft.severity) == ("without-effect", WARNING)
    line = (model.turned if model is RotationDropped else model.__call__).__code__.co_firstlineno
    assert draft.where["file"] == __file__
    assert draft.where["line"] == line + (1 if model is RotationDropped else 2)


@pytest.mark.parametrize("model", [Rotated, ForTheLoss, ExpertNotChosen])
def test_what_has_a_use_is_left_alone(model):
    assert asked(model) == ()
