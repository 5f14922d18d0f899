"""How far back a model sees, of what it might see."""

from __future__ import annotations

import mlx.core as mx
import pytest
from tiny import Placed, judged

from mlxstories.faults.recipe import built_in
from mlxstories.findings import ERROR
from mlxstories.ladder.bench import Bench

PAST = "sees its own past"


class Blocks(Placed):
    def weights(self, length):
        block = mx.arange(length) // 4
        return mx.tri(length) * (block[:, None] == block)


def test_blocks_that_see_no_other_are_called_by_their_name():
    assert judged(PAST, model=Blocks) == [("context-cut", ERROR)]


class Window(Placed):
    """Sees three tokens back and no further."""

    def weights(self, length):
        return mx.tri(length) - mx.tri(length, k=-4)


class Segments(Placed):
    """Token 0 starts a new story, and nothing before it is seen."""

    def __call__(self, tokens):
        story = mx.cumsum(tokens == 0, axis=1)
        seen = mx.tri(tokens.shape[1]) * (story[:, :, None] == story[:, None, :])
        x = self.embedded(tokens)
        return self.head(x + mx.tanh(self.mix(seen @ x)))


@pytest.mark.parametrize(
    "model, name",
    [(Placed, PAST), (Window, PAST), (Segments, PAST), (Segments, "a prefix alone gives the same logits")],
)
def test_a_window_and_stories_that_end_are_left_alone(model, name):
    assert judged(name, model=model) == []


@pytest.mark.parametrize("fault", ["distance-rewarded", "attention-in-blocks"])
def test_a_planted_fault_is_named(fault):
    assert judged(PAST, Bench(built_in(fault=fault))) == [("context-cut", ERROR)]
