"""Reported mistakes inside of models, and their mends."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
from base import Attention, Block, D, FeedForward, Story, T, V, setup
from mlx.utils import tree_map

EXPERTS = 4


class Experts(nn.Module):
    """One of four experts for each token, times its weight: a softmax of the scores of all, or of those chosen."""

    def __init__(self, of_chosen):
        super().__init__()
        self.gate, self.experts = nn.Linear(D, EXPERTS, bias=False), [FeedForward() for _ in range(EXPERTS)]
        self.of_chosen = of_chosen

    def __call__(self, x):
        scores = self.gate(x)
        best = mx.stop_gradient(scores.argmax(-1, keepdims=True))
        if self.of_chosen:
            weight = mx.softmax(mx.take_along_axis(scores, best, axis=-1), axis=-1)
        else:
            weight = mx.take_along_axis(mx.softmax(scores, axis=-1), best, axis=-1)
        told = mx.stack([expert(x) for expert in self.experts], axis=-2)
        return weight * (told * (best == mx.arange(EXPERTS))[..., None]).sum(axis=-2)


class Routed(Block):
    def __init__(self, of_chosen):
        super().__init__()
        self.feed_forward = Experts(of_chosen)


def f_softmax_of_one():
    """The softmax runs over the scores of the chosen experts, of which there is one: its weight is 1, and the gate
    never learns."""
    return setup("softmax of one", lambda: Story(Routed, of_chosen=True))


def ok_softmax_of_one():
    return setup("softmax of four", lambda: Story(Routed, of_chosen=False))


def deviating():
    model = Story()
    model.update(tree_map(lambda w: mx.random.normal(w.shape) if w.ndim == 2 else w, model.parameters()))
    return model


def f_deviation_of_one():
    """All matrices begin with a standard deviation of 1, whatever their width."""
    return setup("deviation of one", deviating)


class Dropped(Block):
    """Dropout of the stream that a branch was added to, or of the branch alone."""

    def __init__(self, of_the_sum):
        super().__init__()
        self.of_the_sum, self.drop = of_the_sum, nn.Dropout(0.1)

    def added(self, x, branch):
        return self.drop(x + branch) if self.of_the_sum else x + self.drop(branch)

    def __call__(self, x, cache=None):
        x = self.added(x, self.attention(self.n1(x), cache))
        return self.added(x, self.feed_forward(self.n2(x)))


def f_dropout_of_the_sum():
    """Dropout comes after the addition: the stream itself is dropped, twice a layer."""
    return setup("dropout of the sum", lambda: Story(Dropped, of_the_sum=True))


def ok_dropout_of_the_sum():
    return setup("dropout of the branch", lambda: Story(Dropped, of_the_sum=False))


class Gated(nn.Module):
    """A gated recurrent unit."""

    def __init__(self, reset):
        super().__init__()
        self.embedding, self.head = nn.Embedding(V, D), nn.Linear(D, V)
        self.read, self.recall = nn.Linear(D, 3 * D), nn.Linear(D, 2 * D, bias=False)
        self.renew, self.reset = nn.Linear(D, D, bias=False), reset

    def __call__(self, x):
        read, told = self.read(self.embedding(x)), []
        h = mx.zeros((x.shape[0], D))
        for t in range(x.shape[1]):
            update, reset, new = mx.split(read[:, t], 3, axis=-1)
            from_update, from_reset = mx.split(self.recall(h), 2, axis=-1)
            update, reset = mx.sigmoid(update + from_update), self.reset(reset + from_reset)
            h = update * mx.tanh(self.renew(reset * h) + new) + (1 - update) * h
            told.append(h)
        return self.head(mx.stack(told, axis=1))


def f_reset_without_sigmoid():
    """The reset gate has no sigmoid: it is any number."""
    return setup("reset without sigmoid", lambda: Gated(reset=lambda gate: gate))


def ok_reset_without_sigmoid():
    return setup("reset with sigmoid", lambda: Gated(reset=mx.sigmoid))


class Unturned(Attention):
    def turned(self, q, k, cache):
        return q, k


class Placed(Story):
    """A learned vector for each place is added, or all of them, times their places, at each."""

    def __init__(self, multiplied):
        super().__init__(attention=Unturned)
        rows = 2 * T
        self.places, self.multiplied = mx.random.normal((rows, D)) * (2 / (rows + D)) ** 0.5, multiplied

    def embed(self, x):
        places = self.places[: x.shape[1]]
        if self.multiplied:
            places = mx.arange(x.shape[1]).astype(mx.float32) @ places
        return self.embedding(x) + places


def f_places_multiplied():
    """The layer of places is a matrix that the vector of all places is multiplied with, not a table: one and the same
    large vector is added everywhere."""
    return setup("places multiplied", lambda: Placed(multiplied=True))


def ok_places_multiplied():
    return setup("places looked up", lambda: Placed(multiplied=False))
