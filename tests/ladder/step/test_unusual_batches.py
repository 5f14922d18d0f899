"""The batches that are least like the others: without a target, the widest, the narrowest."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from plain import B, T, V, bench
from tiny import judged

from mlxstories.ladder.bench.step.unusual_batches import unusual_batches


def batches(widths=(T,) * 6, counts=lambda index: T):
    """Rows of these widths, of which so many cells count."""

    def made(seed):
        for index, width in enumerate(widths):
            rows = np.random.default_rng((seed, index)).integers(0, V, (B, width + 1))
            mask = np.broadcast_to(np.arange(width) < counts(index), (B, width))
            yield mx.array(rows[:, :-1]), mx.array(rows[:, 1:]), mx.array(mask * 1.0)

    return made


def mean(least):
    def loss(model, batch):
        nats = nn.losses.cross_entropy(model(batch[0]), batch[1])
        return (nats * batch[2]).sum() / mx.maximum(batch[2].sum(), least)

    return loss


def one_empty(index):
    return 0 if index == 3 else T - index


@pytest.mark.parametrize(("least", "found"), [(0.0, [("not-finite", "error")]), (1.0, [])])
def test_a_batch_without_a_target_ends_a_training_that_divides_by_their_number(least, found):
    on = bench(loss=mean(least), train_batches=batches(counts=one_empty))
    assert judged("unusual batches keep it finite", on) == found
    assert [(step.index, step.real) for step in unusual_batches(on)] == [(0, B * T), (3, 0)]


def test_the_widest_and_the_narrowest_are_tried_and_batches_that_are_alike_are_not():
    on = bench(loss=mean(1.0), train_batches=batches(widths=(8, 12, 6, 10), counts=lambda index: 4))
    assert [step.shape for step in unusual_batches(on)] == [(B, 12), (B, 6)]
    assert unusual_batches(bench(train_batches=batches())) == []
