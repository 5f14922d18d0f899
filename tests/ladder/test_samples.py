"""The rows on which the bench measures."""

from __future__ import annotations

import mlx.core as mx
from tiny import B, T, batches, subject

from mlxstories.batch import Batch
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.samples import sample


def test_rows_of_one_token_come_last():
    def filled(seed):
        yield Batch(mx.full((B, T), 3), mx.full((B, T), 3), mx.ones((B, T)))
        yield from batches(seed, count=2)

    inputs = sample(Bench(subject(train_batches=filled))).inputs
    varied = (inputs != inputs[:, :1]).any(1)
    assert not varied.all()
    assert varied.tolist() == sorted(varied.tolist(), reverse=True)
