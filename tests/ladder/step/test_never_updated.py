"""Moments that no gradient enters."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import pytest
from mlx.utils import tree_map
from tiny import V, first, line_with, nats, subject

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.step.never_updated import never_updated


class Unfed(optim.Adam):
    def apply_single(self, gradient, parameter, state):
        b1, b2 = self.betas
        state["m"] = b1 * state["m"] + (1 - b1) * gradient
        state["v"] = b2 * state["v"]  # unfed
        move = state["m"] / (mx.sqrt(state["v"]) + 1e-6)
        return parameter - self.learning_rate * move * mx.linalg.norm(parameter) / mx.linalg.norm(move)


class Signs(optim.Adam):
    """Takes the signs of its first moment, and leaves the second as it was made: nothing is wrong with that."""

    def apply_single(self, gradient, parameter, state):
        state["m"] = 0.9 * state["m"] + 0.1 * gradient
        return parameter - self.learning_rate * mx.sign(state["m"])


def test_a_moment_that_no_gradient_enters():
    found = first(optimizer=lambda: Unfed(1e-2))
    assert (found.code, found.severity, found.evidence["entry"]) == ("state-not-kept", "error", "v")
    assert found.where["line"] == line_with(Unfed, "# unfed")


class Differences(optim.Optimizer):
    """Adds how the gradient, or the weight, has changed since the last update, as Adan does."""

    def __init__(self, of: str):
        super().__init__()
        self.of = of

    def init_single(self, parameter, state):
        state["last"], state["d"] = mx.zeros_like(parameter), mx.zeros_like(parameter)

    def apply_single(self, gradient, parameter, state):
        here = gradient if self.of == "gradients" else parameter
        state["d"] = 0.9 * state["d"] + 0.1 * mx.where(self.step > 1, here - state["last"], 0)
        state["last"] = here
        return parameter - 1e-3 * (gradient + state["d"])


class Curved(optim.Optimizer):
    """Goes by a curvature that the step hands it."""

    def __init__(self):
        super().__init__()
        self.learning_rate = 1e-3

    def init_single(self, parameter, state):
        state["m"], state["h"] = mx.zeros_like(parameter), mx.zeros_like(parameter)

    def apply_single(self, gradient, parameter, state):
        state["m"] = 0.9 * state["m"] + 0.1 * gradient
        return parameter - self.learning_rate * state["m"] / mx.maximum(state["h"], 1e-3)

    def curve(self, gradients):
        tree_map(lambda g, s: s.update(h=s["h"] + g.square()), gradients, self.state)


@pytest.mark.parametrize("every", [10, 10**6])
def test_a_state_that_the_step_feeds_now_and_then(every):
    def step(model, optimizer, batch):
        loss, gradients = nn.value_and_grad(model, nats)(model, batch)
        optimizer.update(model, gradients)
        if optimizer.step.item() % every == 0:
            optimizer.curve(gradients)
        return loss

    found = never_updated(Bench(subject(optimizer=Curved, train_step=step)))
    assert [key for _, key in found] == ([] if every == 10 else ["h"])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Signs(1e-3),
        lambda: Differences("gradients"),
        lambda: Differences("weights"),
        lambda: optim.SGD(1e-2),
        lambda: optim.SGD(1e-2, momentum=0.9),
        lambda: optim.RMSprop(1e-3),
        lambda: optim.Adagrad(1e-2),
        lambda: optim.AdaDelta(1.0),
        lambda: optim.Adamax(1e-3),
        lambda: optim.Lion(1e-4),
        lambda: optim.Adafactor(1e-3, relative_step=False, scale_parameter=False),
        lambda: optim.Muon(1e-2),
        lambda: optim.MultiOptimizer(
            [optim.Muon(1e-2), optim.AdamW(1e-3)], [lambda name, weight: weight.ndim == 2]
        ),
    ],
)
def test_states_that_are_fed_or_not_used(make):
    assert not never_updated(Bench(subject(optimizer=make)))


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [nn.Embedding(V, 8), nn.Linear(8, V)]

    def __call__(self, tokens):
        return self.layers[1](self.layers[0](tokens))


def test_an_unfed_entry_is_found_in_lists_too():
    found = never_updated(Bench(subject(model=Layers, optimizer=lambda: Unfed(1e-2))))
    assert [key for _, key in found] == ["v"]


def test_of_several_optimisers_the_one_that_is_not_fed():
    def make():
        return optim.MultiOptimizer([Unfed(1e-3), optim.AdamW(1e-3)], [lambda name, weight: weight.ndim == 2])

    assert [(type(keeper), key) for keeper, key in never_updated(Bench(subject(optimizer=make)))] == [
        (Unfed, "v")
    ]
