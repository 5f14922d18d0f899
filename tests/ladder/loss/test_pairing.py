"""Which logits answer a target."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from plain import B, T, V, batches, bench

from mlxstories.ladder.bench.loss.pairing import pairing


def paired(heard):
    """A loss of [B, T] targets and the logits that ``heard`` brings to [B * T, V]."""

    def loss(model, batch):
        nats = nn.losses.cross_entropy(heard(model(batch[0])), batch[1].reshape(-1))
        mask = batch[2].reshape(-1)
        return (nats * mask).sum() / mask.sum()

    return loss


def in_one_line(model, batch):
    return nn.losses.cross_entropy(model(batch[0]).reshape(-1, V)[:-1], batch[1].reshape(-1)[1:]).mean()


def turned_round(model, batch):
    nats, mask = nn.losses.cross_entropy(model(batch[0]), batch[1]), 1 - batch[2]
    return (nats * mask).sum() / mask.sum()


def masked(seed):
    mask = mx.array(np.arange(T) < T - 3).astype(mx.float32) * mx.ones((B, 1))
    return ((x, y, mask) for x, y in batches(seed))


@pytest.mark.parametrize(
    ("loss", "own", "offset", "nowhere"),
    [
        (paired(lambda z: z.reshape(-1, V)), 1.0, 0, 0),
        (paired(lambda z: z.swapaxes(1, 2).reshape(-1, V)), 0.5, None, 0),
        (in_one_line, 0.0, 1, 0),
        (turned_round, 0.0, 0, 1),
    ],
)
def test_the_gradient_says_which_logits_answer_a_target(loss, own, offset, nowhere):
    found = pairing(bench(train_batches=masked, loss=loss))
    assert found.own == own if own in (0, 1) else found.own < own
    assert offset is None or found.offset[0] == offset
    assert found.nowhere == nowhere
    assert found.masked == (loss in (in_one_line, turned_round))


def test_a_loss_that_draws_something_is_not_asked_for_pairs():
    def drawn(model, batch):
        return (nn.losses.cross_entropy(model(batch[0]), batch[1]) * mx.random.uniform(shape=(B, T))).mean()

    assert pairing(bench(loss=drawn)) is None
