"""Attention scores that rise or fall with the distance, by softmax and by MLX's own attention."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlxstories.ladder import Subject
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.distance import rises
from mlxstories.ladder.bench.model.forward_pass import forward_pass
from mlxstories.ladder.registry import CHECKS

V, T, D, H = 17, 24, 16, 4


def biased(slopes, size=T):
    """[H, T, T]: slope times distance, the future masked."""
    far = mx.arange(size)[:, None] - mx.arange(size)
    return mx.where(far < 0, -1e9, mx.array(slopes, mx.float32)[:, None, None] * far)


class Attention(nn.Module):
    """One layer; a bias of these slopes."""

    def __init__(self, slopes, fast):
        super().__init__()
        self.embed, self.head = nn.Embedding(V, D), nn.Linear(D, V)
        self.query, self.key = nn.Linear(D, D), nn.Linear(D, D)
        self._slopes, self._fast = slopes, fast

    def __call__(self, tokens):
        x = self.embed(tokens)
        q, k, v = (a.reshape(*a.shape[:2], H, -1).swapaxes(1, 2) for a in (self.query(x), self.key(x), x))
        bias = biased(self._slopes, tokens.shape[1])
        if self._fast:
            out = mx.fast.scaled_dot_product_attention(q, k, v, scale=0.5, mask=bias)
        else:
            out = mx.softmax(0.5 * (q @ k.swapaxes(-1, -2)) + bias, axis=-1) @ v
        return self.head(out.swapaxes(1, 2).reshape(x.shape))


def batches(seed):
    table = np.random.default_rng(seed).integers(0, V, (32, T + 1))
    return ((mx.array(w[:, :-1]), mx.array(w[:, 1:])) for w in np.split(table, 8))


def bench(slopes, fast=False) -> Bench:
    return Bench(Subject(model=lambda: Attention(slopes, fast), vocab_size=V, train_batches=batches))


def test_a_line_is_laid_through_the_scores_of_each_head():
    rng = np.random.default_rng(0)
    scores = biased([0.25, -0.5, 0, 0]) + mx.array(0.1 * rng.standard_normal((8, H, T, T)))
    found = rises(scores)
    assert [head.rise for head in found] == pytest.approx([0.25 * 22, -0.5 * 22, 0, 0], abs=0.1)
    assert [round(head.fit) for head in found] == [1, -1, 0, 0]
    assert rises(mx.zeros((2, H, T, T))) == rises(scores[..., :4, :4]) == []


def test_nothing_is_read_from_scores_that_are_not_numbers():
    assert rises(mx.full((2, T, T), mx.nan)) == rises(mx.full((2, T, T), -mx.inf)) == []


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize(
    ("slopes", "accused"),
    [
        ([0.25, 0.0625, 0.015625, 0.00390625], True),
        ([-0.25, -0.0625, -0.015625, -0.00390625], False),
        ([0.25, 0.0625, -0.0625, -0.25], False),  # heads of both kinds
        ([0.01, 0.01, 0.01, 0.01], False),
        ([0, 0, 0, 0], False),
    ],
)
def test_a_bias_that_rewards_the_distance(slopes, accused, fast):
    on, check = bench(slopes, fast), CHECKS["attention is not drawn to far tokens"]
    assert len(forward_pass(on).rises) == H
    verdict = check.ask(on, check.gauges())
    assert [(draft.code, draft.severity) for draft in verdict.drafts] == [("context-cut", "error")] * accused
    assert verdict.status == ("failed" if accused else "passed")


def test_scores_hidden_by_all_that_a_float_holds_are_left_out():
    far = mx.arange(T)[:, None] - mx.arange(T)
    hidden = mx.where(far < 0, mx.finfo(mx.float32).min, -0.5 * far)
    (rise,) = rises(mx.repeat(hidden[None, None], 3, axis=0))
    assert (rise.rise, rise.fit) == pytest.approx((-0.5 * (T - 2), -1.0))


@pytest.mark.parametrize("slope, told", [(0.12, ["warning"]), (0.0, []), (-0.12, [])])
def test_far_tokens_that_count_more_than_near_ones(slope, told):
    on, check = bench([slope] * H), CHECKS["sees its own past"]
    with on.protected():
        drafts = check.ask(on, check.gauges()).drafts
    assert [draft.severity for draft in drafts] == told
