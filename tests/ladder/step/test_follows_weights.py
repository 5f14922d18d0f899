"""Steps that follow the weights, compiled or not."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_map
from tiny import Tiny, ask, nats, told

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


def drawing_anew(updated: bool):
    """A step whose loss has weights of its own, or the model's with noise; either is random."""

    def step(model, optimizer, batch):
        noise = tree_map(lambda a: 0.1 * mx.random.normal(a.shape), model.parameters())
        used = Tiny()
        used.update(tree_map(mx.add, model.parameters(), noise) if updated else noise)
        value, gradients = nn.value_and_grad(used, lambda b: nats(used, b))(batch)
        optimizer.update(model, gradients)
        return value

    return step


@pytest.mark.parametrize(
    ("updated", "wanted"),
    [(False, ("failed", [("stale-computation", "error")])), (True, ("passed", []))],
)
def test_a_step_whose_weights_are_drawn_anew_follows_no_model(updated, wanted):
    assert told(ask("the step follows the weights", train_step=drawing_anew(updated))) == wanted


@pytest.mark.parametrize("echoes", [False, True])
@pytest.mark.parametrize(
    ("stale", "wanted"), [(True, ("failed", [("stale-computation", "error")])), (False, ("passed", []))]
)
def test_decoding_that_keeps_its_first_weights_is_told_whether_or_not_it_repeats_the_prompt(
    echoes, stale, wanted
):
    kept = {}

    def generate(model, prompt, count):
        model.eval()
        if stale:
            model.update(kept.setdefault(id(model), tree_map(lambda a: a, model.parameters())))
        ids = list(prompt)
        for _ in range(count):
            ids.append(int(mx.argmax(model(mx.array([ids]))[0, -1])))
        return ids if echoes else ids[len(prompt) :]

    def untouched(model, prompt, count):
        own = tree_map(lambda a: a, model.parameters())
        told = generate(model, prompt, count)
        model.update(own)
        return told

    assert told(ask("decoding follows the weights", generate=untouched)) == wanted
