"""Steps that spoil a gradient and optimisers that spoil an update, and the line at which they do."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_map
from tiny import first, line_with, nats


class NegativeRoot(optim.Adam):
    def apply_single(self, gradient, parameter, state):
        b1, b2 = self.betas
        state["m"] = b1 * state["m"] + (1 - b1) * gradient
        state["v"] = b2 * state["v"] + (1 - b2) * mx.square(gradient)
        moved = parameter - self.learning_rate * state["m"] / mx.sqrt(state["v"] - 1)  # spoiled
        return moved


class Backwards(optim.SGD):
    def apply_single(self, gradient, parameter, state):
        return parameter + self.learning_rate * gradient  # uphill


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
