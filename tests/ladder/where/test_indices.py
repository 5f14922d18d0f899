"""The line whose indices have no gradient."""

from __future__ import annotations

import linecache

import mlx.core as mx
import mlx.nn as nn
import pytest
from tiny import Tiny, subject

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.samples import sample
from mlxstories.ladder.bench.subject_fault import SubjectFault


class Routed(Tiny):
    """Of what it embeds, the largest entries are kept, in a place that is sought for nothing as well."""

    def __init__(self, stops: bool = False):
        super().__init__()
        self.stops, self.last = stops, nn.Linear(16, 16)

    def __call__(self, tokens):
        x = self.last(self.embed(tokens))
        highest = mx.argmax(x, axis=-1, keepdims=True)
        order = mx.argsort(-x, axis=-1)[..., :4]  # here
        order = mx.stop_gradient(order) if self.stops else order
        kept = mx.put_along_axis(mx.zeros_like(x), order, mx.take_along_axis(x, order, axis=-1), axis=-1)
        return self.head(kept + 0 * mx.stop_gradient(highest))


def test_indices_that_are_not_stopped_are_named():
    bench = Bench(subject(model=Routed))
    with pytest.raises(SubjectFault) as fault:
        bench.gradients(bench.model(), sample(bench))
    file, _, line = fault.value.draft.where.rpartition(":")
    assert "# here" in linecache.getline(file, int(line))
    assert "mx.stop_gradient" in fault.value.draft.fix


def test_stopped_indices_have_a_gradient_beside_them():
    bench = Bench(subject(model=lambda: Routed(stops=True)))
    assert bench.gradients(bench.model(), sample(bench))
