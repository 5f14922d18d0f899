"""Scores of attention, read where they are seen."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import pytest
from plain import Net, bench

from mlxstories.ladder.bench.model.forward_pass import forward_pass


class Attend(nn.Module):
    """Scores of known spread, beside a mask of minus infinity and a bias of the place, which count for nothing."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def __call__(self, x):
        t = x.shape[1]
        scores = self.factor * mx.random.normal((len(x), 2, t, t), key=mx.random.key(1))
        place = 100.0 * mx.arange(t)
        mask = mx.where(mx.tri(t) > 0, 0.0, -mx.inf)
        return x + mx.softmax(scores + place + mask, axis=-1).sum((1, 2))[:, :, None]


@pytest.mark.parametrize("factor", [0.5, 5.0])
def test_scores_are_read_where_they_are_seen(factor):
    before = mx.softmax
    found = forward_pass(bench(model=lambda: Net(Attend(factor))))
    assert found.scores == pytest.approx(factor, rel=0.2)  # eight rows give a standard deviation
    assert mx.softmax is before
