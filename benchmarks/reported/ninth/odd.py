"""Sound setups that look odd, as public code has them."""

from __future__ import annotations

import math
from functools import cache

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from base import HELD, TOLD, Attention, D, FeedForward, Letters, Story, T, V, deal, mean_nats, setup, windows
from mlx.utils import tree_map


class Sigmoid(Attention):
    """Each weight is a sigmoid of its own score, less the logarithm of how many keys there are."""

    def weights(self, scores):
        return mx.sigmoid(scores - math.log(T))


def h_sigmoid_attention():
    return setup("sigmoid attention", lambda: Story(attention=Sigmoid))


class Pairs(Story):
    """Beside the embedding of a character stands one of the pair that it ends, by a hash into a table."""

    SIZE = 509

    def __init__(self):
        super().__init__()
        self.pairs = nn.Embedding(self.SIZE, D)

    def embed(self, x):
        before = mx.concatenate([mx.zeros_like(x[:, :1]), x[:, :-1]], axis=1)
        return self.embedding(x) + self.pairs((before * 31 + x) % self.SIZE)


def h_pairs_embedded():
    return setup("pairs embedded", Pairs)


class Bilinear(FeedForward):
    """One half of what comes up multiplies the other; there is no other nonlinearity."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(D, 4 * D)

    def __call__(self, x):
        return self.down(self.gate(x) * self.up(x))


def bilinear():
    model = Story()
    for block in model.blocks:
        block.feed_forward = Bilinear()
    return model


def h_bilinear():
    return setup("bilinear", bilinear)


def at_frequencies():
    """A bias of the output layer begins at the logarithms of the characters' frequencies."""
    model = Story()
    model.head = nn.Linear(D, V)
    counts = np.bincount(windows("train").flatten(), minlength=V) + 1
    model.head.bias = mx.array(np.log(counts / counts.sum()).astype(np.float32))
    return model


def h_begun_at_frequencies():
    return setup("begun at frequencies", at_frequencies)


class Directed(nn.Module):
    """A linear layer whose rows are directions, each with a length of its own."""

    def __init__(self, inside, outside):
        super().__init__()
        self.direction = mx.random.normal((outside, inside))
        self.length, self.bias = mx.ones((outside,)), mx.zeros((outside,))

    def __call__(self, x):
        shares = self.length * mx.rsqrt((self.direction**2).sum(axis=-1))
        return x @ (shares[:, None] * self.direction).T + self.bias


def directed():
    model = Story()
    for block in model.blocks:
        block.feed_forward.up, block.feed_forward.down = Directed(D, 4 * D), Directed(4 * D, D)
    return model


def h_lengths_and_directions():
    """Weight normalisation."""
    return setup("lengths and directions", directed)


class Never(optim.Adam):
    """AMSGrad: steps are divided by the largest second moment so far."""

    def init_single(self, parameter, state):
        super().init_single(parameter, state)
        state["most"] = mx.zeros_like(parameter)

    def apply_single(self, gradient, parameter, state):
        b1, b2 = self.betas
        state["m"] = b1 * state["m"] + (1 - b1) * gradient
        state["v"] = b2 * state["v"] + (1 - b2) * gradient**2
        state["most"] = mx.maximum(state["most"], state["v"])
        first, second = 1 - b1**self.step, 1 - b2**self.step
        rate = self.learning_rate.astype(gradient.dtype) / first
        return parameter - rate * state["m"] / (mx.sqrt(state["most"] / second) + self.eps)


def h_largest_moment():
    return setup("largest moment", optimizer=lambda: Never(2e-3))


def every_second_call():
    """A step that keeps the gradient of every other batch, and updates with its mean with that of the next."""
    kept = []

    def step(model, optimizer, batch):
        value, gradient = nn.value_and_grad(model, mean_nats)(model, batch)
        kept.append(gradient)
        if len(kept) == 2:
            optimizer.update(model, tree_map(lambda a, b: (a + b) / 2, *kept))
            kept.clear()
        mx.eval(model.parameters(), optimizer.state, value, kept)
        return value

    return step


def h_every_second_call():
    return setup("every second call", train_step=every_second_call())


class Dropped(nn.Linear):
    """A tenth of the weights is left out while the model learns."""

    def __call__(self, x):
        weight = self.weight
        if self.training:
            weight = weight * (mx.random.uniform(shape=weight.shape) > 0.1) / 0.9
        return x @ weight.T + self.bias


def dropped():
    model = Story()
    for block in model.blocks:
        block.feed_forward.up, block.feed_forward.down = Dropped(D, 4 * D), Dropped(4 * D, D)
    return model


def h_weights_dropped():
    """Dropout of weights, not of units."""
    return setup("weights dropped", dropped)


BEFORE = T // 4


@cache
def overlapping(part):
    """int32 [N, T + 1]: the first quarter of a row is the end of the row before it."""
    ids = np.array(Letters().encode(" ".join(TOLD if part == "train" else HELD)), np.int32)
    return np.stack([ids[at : at + T + 1] for at in range(0, len(ids) - T, T - BEFORE)])


def after_context(rows):
    """The first quarter is read, and counts in the row before."""
    return np.broadcast_to(np.arange(T) >= BEFORE, (len(rows), T))


def h_context_first():
    return setup(
        "context first",
        train_batches=lambda seed: deal(overlapping("train"), seed, after_context),
        val_batches=lambda: deal(overlapping("val"), counts=after_context),
    )


def still():
    """The embedding is random, and frozen by its author."""
    model = Story()
    model.embedding.freeze()
    return model


def h_embedding_stays():
    return setup("embedding stays", still)
