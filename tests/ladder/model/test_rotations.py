"""Rotations by place, by head, and none."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import pytest
from plain import V, bench

from mlxstories.ladder.bench.model.rotations import rotations

D, H = 16, 2


class Turned(nn.Module):
    """One layer of causal attention whose queries and keys are turned over this axis of [B, T, H, d]."""

    def __init__(self, axis: int | None = 1):
        super().__init__()
        self.embed, self.head = nn.Embedding(V, D), nn.Linear(D, V)
        self.query, self.key = nn.Linear(D, D), nn.Linear(D, D)
        self.rope, self.axis = nn.RoPE(D // H), axis

    def turned(self, x):
        if self.axis is None:
            return x.swapaxes(1, 2)
        return self.rope(x.swapaxes(1, 2)) if self.axis == 1 else self.rope(x).swapaxes(1, 2)

    def __call__(self, tokens):
        x = self.embed(tokens)
        split = (*x.shape[:2], H, D // H)
        q, k = (self.turned(layer(x).reshape(split)) for layer in (self.query, self.key))
        mask = nn.MultiHeadAttention.create_additive_causal_mask(x.shape[1])
        weights = mx.softmax(q @ k.swapaxes(-1, -2) + mask, axis=-1)
        return self.head((weights @ x.reshape(split).swapaxes(1, 2)).swapaxes(1, 2).reshape(x.shape))


def test_rotations_by_place_have_an_effect_and_those_by_head_have_none():
    assert rotations(bench(model=Turned)) > 1e-2
    assert rotations(bench(model=lambda: Turned(axis=2))) < 1e-5
    assert rotations(bench(model=lambda: Turned(axis=None))) is None


@pytest.mark.parametrize("part", ["embed", "query", "head", ""])
def test_weights_of_16_bits_hide_neither(part):
    def halved(axis):
        model = Turned(axis)
        (model[part] if part else model).set_dtype(mx.bfloat16)
        return model

    assert rotations(bench(model=lambda: halved(1))) > 1e-2
    assert rotations(bench(model=lambda: halved(2))) < 1e-5
