"""Optimisers that spoil their own update, and the line of theirs at which they do."""

from __future__ import annotations

import inspect

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import pytest
import tiny
from mlx.utils import tree_map

from mlxstories.ladder import diagnose
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.step.unfed import unfed


class NegativeRoot(optim.Adam):
    def apply_single(self, gradient, parameter, state):
        b1, b2 = self.betas
        state["m"] = b1 * state["m"] + (1 - b1) * gradient
        state["v"] = b2 * state["v"] + (1 - b2) * mx.square(gradient)
        moved = parameter - self.learning_rate * state["m"] / mx.sqrt(state["v"] - 1)  # spoiled
        return moved


class Unfed(optim.Adam):
    def apply_single(self, gradient, parameter, state):
        b1, b2 = self.betas
        state["m"] = b1 * state["m"] + (1 - b1) * gradient
        state["v"] = b2 * state["v"]  # unfed
        move = state["m"] / (mx.sqrt(state["v"]) + 1e-6)
        return parameter - self.learning_rate * move * mx.linalg.norm(parameter) / mx.linalg.norm(move)


class Backwards(optim.SGD):
    def apply_single(self, gradient, parameter, state):
        return parameter + self.learning_rate * gradient  # uphill


class Averaged(optim.SGD):
    """Weights between those that are stepped and their mean; of the shares one is left out."""

    def __init__(self, rate, share):
        super().__init__(rate)
        self.share = share

    def init_single(self, parameter, state):
        state["n"] = mx.array(0.0)

    def apply_single(self, gradient, parameter, state):
        if "z" not in state:
            state["z"] = state["x"] = parameter
        state["n"] = state["n"] + 1
        state["z"] = state["z"] - self.learning_rate * gradient
        state["x"] = state["x"] + (state["z"] - state["x"]) / state["n"]
        return self.share * state["z"] + 0.9 * state["x"]  # grown


class Signs(optim.Adam):
    """Takes the signs of its first moment, and leaves the second as it was made: nothing is wrong with that."""

    def apply_single(self, gradient, parameter, state):
        state["m"] = 0.9 * state["m"] + 0.1 * gradient
        return parameter - self.learning_rate * mx.sign(state["m"])


def nats(model, batch):
    return nn.losses.cross_entropy(model(batch.inputs), batch.targets, reduction="mean")


def first(**fields):
    return diagnose(tiny.subject(**fields), rungs=["data", "init", "minimal"]).findings[0]


def line_with(cls: type, mark: str) -> int:
    lines, start = inspect.getsourcelines(cls)
    return start + next(i for i, text in enumerate(lines) if mark in text)


def test_an_update_that_is_not_finite_is_the_optimisers_and_has_its_line():
    found = first(optimizer=lambda: NegativeRoot(1e-3))
    assert (found.code, found.evidence["part"]) == ("not-finite", "step")
    assert "gradient that reaches the optimiser is finite" in found.message
    assert found.where["line"] == line_with(NegativeRoot, "# spoiled")


def test_a_gradient_that_is_not_finite_is_the_losss_or_the_steps():
    def rooted(model, batch):
        loss = nats(model, batch)
        return loss + mx.sqrt(loss - loss)

    found = first(loss=rooted)
    assert (found.code, found.evidence["part"]) == ("not-finite", "loss")

    def step(model, optimizer, batch):
        loss, gradients = nn.value_and_grad(model, nats)(model, batch)
        optimizer.update(model, tree_map(lambda g: g / 0, gradients))
        return loss

    found = first(train_step=step)
    assert (found.code, found.evidence["part"]) == ("not-finite", "step")
    assert "gradient that reaches" not in found.message


def test_an_optimiser_that_climbs_is_told_from_a_step_that_does():
    found = first(optimizer=lambda: Backwards(1e-2))
    assert (found.code, found.evidence["part"]) == ("loss-sign", "step")
    assert found.where["line"] == line_with(Backwards, "# uphill")

    def step(model, optimizer, batch):
        loss, gradients = nn.value_and_grad(model, nats)(model, batch)
        optimizer.update(model, tree_map(lambda g: -g, gradients))
        return loss

    found = first(train_step=step, optimizer=lambda: optim.SGD(1e-2))
    assert (found.code, found.evidence["part"]) == ("loss-sign", "step")
    assert "train_step" in str(found.where)


def test_a_moment_that_no_gradient_enters():
    found = first(optimizer=lambda: Unfed(1e-2))
    assert (found.code, found.severity, found.evidence["entry"]) == ("state-not-kept", "error", "v")
    assert found.where["line"] == line_with(Unfed, "# unfed")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Signs(1e-3),
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
    assert not unfed(Bench(tiny.subject(optimizer=make)))


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [nn.Embedding(tiny.V, 8), nn.Linear(8, tiny.V)]

    def __call__(self, tokens):
        return self.layers[1](self.layers[0](tokens))


def test_states_in_lists():
    found = unfed(Bench(tiny.subject(model=Layers, optimizer=lambda: Unfed(1e-2))))
    assert [key for _, key in found] == ["v"]


def test_of_several_optimisers_the_one_that_is_not_fed():
    def make():
        return optim.MultiOptimizer([Unfed(1e-3), optim.AdamW(1e-3)], [lambda name, weight: weight.ndim == 2])

    assert [(type(keeper), key) for keeper, key in unfed(Bench(tiny.subject(optimizer=make)))] == [
        (Unfed, "v")
    ]


@pytest.mark.parametrize("share, grown", [(1.0, True), (0.1, False)])
def test_shares_of_the_weights_that_add_up_to_more_than_one(share, grown):
    climbed = diagnose(
        tiny.subject(optimizer=lambda: Averaged(1e-1, share)), rungs=["data", "init", "minimal"]
    )
    errors = [f for f in climbed.findings if f.severity == "error"]
    assert [f.code for f in errors] == ["extreme-constants"] * grown
    if grown:
        assert errors[0].evidence["grown"] == pytest.approx(0.9, abs=0.02)
        assert errors[0].where["line"] == line_with(Averaged, "# grown")
