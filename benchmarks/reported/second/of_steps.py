"""Reported mistakes of the loop and the update, and their mends."""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from base import B, Block, Story, adamw, deal, mean_nats, setup, step_of, windows
from mlx.nn.utils import checkpoint

EPOCH = 12  # batches, of the smaller data below


def cosine(period, peak=2e-3):
    """Down to nothing after ``period`` calls, and, since a cosine goes on, up again."""
    return lambda: optim.AdamW(
        lambda step: peak / 2 * (1 + mx.cos(math.pi * step / period)), bias_correction=True
    )


def f_cosine_in_epochs():
    """A cosine over three epochs, given as 3, is advanced with each update: the rate swings."""
    return setup("cosine over 3 updates", optimizer=cosine(3))


def ok_cosine_in_epochs():
    return setup("cosine over 3 epochs", optimizer=cosine(3 * (len(windows("train")) // B)))


class Epochs:
    """Counts updates, and starts a new optimiser with each epoch."""

    def __init__(self):
        self.done = {}

    def step(self, model, optimizer, batch):
        _, done = self.done.get(id(optimizer), (None, 0))
        if done % EPOCH == 0:
            optimizer.init(model.trainable_parameters())
            optimizer.state["step"] = mx.array(0, mx.uint64)
        self.done[id(optimizer)] = optimizer, done + 1  # held, so that its id stays its own
        return step_of(mean_nats)(model, optimizer, batch)


def on_few(name, **changes):
    few = windows("train")[: EPOCH * B]
    return setup(name, train_batches=lambda seed: deal(few, seed), **changes)


def f_optimizer_each_epoch():
    """The function that trains an epoch makes its own optimiser: the moments are lost every 12 updates."""
    return on_few("an optimiser an epoch", train_step=Epochs().step)


def ok_optimizer_each_epoch():
    return on_few("few windows")


def two_keys():
    return mx.random.split(mx.random.key(mx.random.randint(0, 2**30).item()))


class RecomputedAlike(Block):
    """As below, with keys that are drawn outside of what is computed again."""

    def both(self, x, keys):
        for key, norm, part in zip(
            keys, (self.n1, self.n2), (self.attention, self.feed_forward), strict=True
        ):
            branch = part(norm(x))
            if self.training:
                branch = branch * mx.random.bernoulli(0.7, branch.shape, key=key) / 0.7
            x = x + branch
        return x

    def __call__(self, x, cache=None):
        if not self.training:
            return self.both(x, (None, None))
        keys = two_keys()
        return checkpoint(self, lambda x: self.both(x, keys))(x)


class Recomputed(Block):
    """Its activations are not kept, but computed again on the way back; dropout draws from the global state."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.3)

    def halves(self, x):
        x = x + self.drop(self.attention(self.n1(x)))
        return x + self.drop(self.feed_forward(self.n2(x)))

    def __call__(self, x, cache=None):
        return checkpoint(self, self.halves)(x)


def f_recomputed_dropout():
    """Blocks are computed a second time on the way back, with another draw of dropout than on the way there."""
    return setup("dropout drawn twice", lambda: Story(block=Recomputed))


def ok_recomputed_dropout():
    return setup("dropout drawn once", lambda: Story(block=RecomputedAlike))


def orthogonal(g, rounds=5):
    """The nearest matrix with singular values near 1, by Newton and Schulz."""
    x = g / (mx.sqrt((g * g).sum()) + 1e-7)
    x = x.T if x.shape[0] > x.shape[1] else x
    for _ in range(rounds):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if g.shape[0] > g.shape[1] else x


class Orthogonalised(optim.Optimizer):
    """Nesterov's momentum, of which the nearest orthogonal matrix is taken; ``of_gradient`` takes that of the bare
    gradient."""

    def __init__(self, rate=0.02, momentum=0.95, of_gradient=False):
        super().__init__()
        self.momentum, self.of_gradient = momentum, of_gradient
        self._maybe_schedule("learning_rate", rate)

    def init_single(self, parameter, state):
        state["velocity"] = mx.zeros_like(parameter)

    def apply_single(self, gradient, parameter, state):
        state["velocity"] = self.momentum * state["velocity"] + gradient
        ahead = gradient + self.momentum * state["velocity"]
        step = orthogonal(gradient if self.of_gradient else ahead)
        wide = max(1.0, parameter.shape[0] / parameter.shape[1]) ** 0.5
        return parameter - self.learning_rate * wide * step


def in_two(of_gradient):
    """Hidden matrices take orthogonalised steps, all else AdamW's."""

    def hidden(path, weight):
        return weight.ndim == 2 and path.startswith("blocks")

    return lambda: optim.MultiOptimizer([Orthogonalised(of_gradient=of_gradient), adamw()()], [hidden])


def f_gradient_orthogonalised():
    """Momentum is kept, and what is orthogonalised is the bare gradient."""
    return setup("bare gradient orthogonalised", optimizer=in_two(True))


def ok_gradient_orthogonalised():
    return setup("momentum orthogonalised", optimizer=in_two(False))
