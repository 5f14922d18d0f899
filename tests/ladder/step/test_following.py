"""Steps that follow the weights, compiled or not."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import pytest
from tiny import ask, nats, told

from mlxstories.batch import Batch


def compiled(captured: bool):
    made = {}

    def build(model):
        state = [model.state] if captured else None
        gradient = nn.value_and_grad(model, lambda *batch: nats(model, Batch(*batch)))
        return mx.compile(lambda x, y, m: gradient(x, y, m), inputs=state, outputs=state)

    def step(model, optimizer, batch):
        if id(model) not in made:
            made[id(model)] = model, build(model)
        value, gradients = made[id(model)][1](*batch)
        optimizer.update(model, gradients)
        return value

    return step


@pytest.mark.parametrize(
    ("captured", "wanted"),
    [(False, ("failed", [("stale-computation", "error")])), (True, ("passed", []))],
)
def test_a_compiled_step_follows_the_weights_that_it_captures(captured, wanted):
    assert told(ask("the step follows the weights", train_step=compiled(captured))) == wanted
