"""Targets that a loss leaves out, and those that it shifts."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from plain import B, T, bench, in_batches, rows

from mlxstories.ladder.bench.batches import Convention
from mlxstories.ladder.bench.epochs import train_epoch
from mlxstories.ladder.bench.loss.convention import convention


def left_out(ignored: int):
    def loss(model, batch):
        keep = batch[1] != ignored
        nats = nn.losses.cross_entropy(model(batch[0]), mx.where(keep, batch[1], 0))
        return (nats * keep).sum() / keep.sum()

    return loss


def with_tail_of(filler: int):
    table = rows()
    table[:, -4:] = filler
    return in_batches(table, lambda w: (mx.array(np.maximum(w[:, :-1], 0)), mx.array(w[:, 1:])))


@pytest.mark.parametrize("ignored", [-100, -1, 0])
def test_ids_at_which_the_loss_looks_away_count_as_masked(ignored):
    asked = bench(train_batches=with_tail_of(ignored), loss=left_out(ignored))
    assert convention(asked) == Convention(ignored=ignored)
    batch = train_epoch(asked).batches[0]
    assert batch.mask.sum(1).tolist() == [T - 4] * B
    assert np.array(batch.user()[1])[:, -4:].tolist() == [[ignored] * 4] * B


def test_padding_that_the_loss_counts_stays_real():
    asked = bench(
        train_batches=with_tail_of(0), loss=lambda m, b: nn.losses.cross_entropy(m(b[0]), b[1]).mean()
    )
    assert convention(asked) == Convention()
    assert train_epoch(asked).batches[0].mask.all()


def test_labels_that_the_loss_shifts_are_read_as_targets_and_handed_back():
    given = in_batches(rows(), lambda w: (mx.array(w[:, :-1]), mx.array(w[:, :-1])))

    def loss(model, batch):
        return nn.losses.cross_entropy(model(batch[0])[:, :-1], batch[1][:, 1:]).mean()

    asked = bench(train_batches=given, loss=loss)
    assert convention(asked) == Convention(shifted=True)
    batch = train_epoch(asked).batches[0]
    assert (batch.targets[:, :-1] == batch.inputs[:, 1:]).all()
    assert batch.mask[:, :-1].all() and not batch.mask[:, -1].any()
    assert np.array_equal(np.array(batch.user()[1]), batch.inputs)
    not_shifted = bench(train_batches=given, loss=lambda m, b: nn.losses.cross_entropy(m(b[0]), b[1]).mean())
    assert convention(not_shifted) == Convention()
