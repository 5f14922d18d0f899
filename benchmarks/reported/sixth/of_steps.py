"""Reported mistakes of optimisers and schedules, and their mends."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from base import adamw, mean_nats, setup


def with_adam(of_matrices):
    """An optimiser of its own for the matrices of the blocks, and AdamW for the rest."""
    return lambda: optim.MultiOptimizer(
        [of_matrices(), adamw()()], [lambda name, weight: "blocks" in name and weight.ndim == 2]
    )


def f_nothing_orthogonalised():
    """The optimiser trusts another part of the library to have orthogonalised the gradients, which does so in some
    configurations only: Muon's rate meets bare gradients."""
    return setup("nothing orthogonalised", optimizer=with_adam(lambda: optim.SGD(0.02)))


def ok_nothing_orthogonalised():
    return setup("Muon", optimizer=with_adam(lambda: optim.Muon(0.02, weight_decay=0.0)))


class Plateau(optim.AdamW):
    """Halves the rate when the mean loss of 10 updates was no better than the best so far, twice in a row."""

    def __init__(self, better):
        super().__init__(2e-3, bias_correction=True)
        self.better, self.best, self.bad, self.seen = better, None, 0, []

    def told(self, loss):
        self.seen.append(loss)
        if len(self.seen) < 10:
            return
        mean, self.seen = sum(self.seen) / 10, []
        if self.best is None or self.better(mean, self.best):
            self.best, self.bad = mean, 0
        else:
            self.bad += 1
        if self.bad == 2:
            self.learning_rate, self.bad = self.learning_rate * 0.5, 0


def watched(model, optimizer, batch):
    value, gradient = nn.value_and_grad(model, mean_nats)(model, batch)
    optimizer.update(model, gradient)
    mx.eval(model.parameters(), optimizer.state, value)
    optimizer.told(value.item())
    return value


def f_plateau_of_rising():
    """The rate is halved when the loss no longer rises: the scheduler waits for a maximum."""
    return setup(
        "plateau of a rising loss",
        optimizer=lambda: Plateau(lambda new, best: new > best),
        train_step=watched,
    )


def ok_plateau_of_rising():
    return setup(
        "plateau of a falling loss",
        optimizer=lambda: Plateau(lambda new, best: new < best),
        train_step=watched,
    )


class Multiplied(optim.AdamW):
    """Adam that multiplies by the corrections of the moments' bias where it should divide."""

    def __init__(self):
        super().__init__(2e-3)

    def apply_single(self, gradient, parameter, state):
        b1, b2 = self.betas
        step = self.step.astype(gradient.dtype)
        state["m"] = b1 * state["m"] + (1 - b1) * gradient
        state["v"] = b2 * state["v"] + (1 - b2) * mx.square(gradient)
        m, v = state["m"] * (1 - b1**step), state["v"] * (1 - b2**step)
        return parameter - self.learning_rate * m / (mx.sqrt(v) + self.eps)


def f_bias_multiplied():
    """Moments are multiplied with what corrects their bias, and not divided by it: steps are ten times as long."""
    return setup("bias multiplied", optimizer=Multiplied)
