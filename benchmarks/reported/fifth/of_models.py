"""Reported mistakes inside of models, and their mends."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
from base import Attention, D, Story, V, setup


class Recurrent(nn.Module):
    """A gated recurrent unit, forward or in both directions."""

    def __init__(self, both):
        super().__init__()
        self.embedding, self.there = nn.Embedding(V, D), nn.GRU(D, D)
        self.back = nn.GRU(D, D) if both else None
        self.head = nn.Linear(2 * D if both else D, V)

    def __call__(self, x):
        h = self.embedding(x)
        seen = self.there(h)
        if self.back is not None:
            seen = mx.concatenate([seen, self.back(h[:, ::-1])[:, ::-1]], axis=-1)
        return self.head(seen)


def f_both_directions():
    """The network reads in both directions, as it might for tagging, and has read the next character."""
    return setup("both directions", lambda: Recurrent(both=True))


def ok_both_directions():
    return setup("one direction", lambda: Recurrent(both=False))


class Rectified(Story):
    def __call__(self, x, cache=None):
        return nn.relu(super().__call__(x, cache))


def f_rectified_logits():
    """The output layer has a ReLU, like those before it: no character can be less likely than by a logit of 0."""
    return setup("rectified logits", Rectified)


class Placed(Story):
    """Sines and cosines of the place are added to the embedding."""

    def __init__(self, **parts):
        super().__init__(**parts)
        self.places = nn.SinusoidalPositionalEncoding(D)

    def embed(self, x):
        return self.embedding(x) + self.places(mx.arange(x.shape[1]))


class Kernel(Attention):
    """Linear attention: weights are products of positive features of queries and keys, divided by their sum."""

    def normalised(self, sums, total):
        return sums / total

    def __call__(self, x, cache=None):
        q, k, v = (self.heads(f(x)) for f in (self.q, self.k, self.v))
        weights = mx.tril((nn.elu(q) + 1) @ (nn.elu(k) + 1).swapaxes(-1, -2))
        told = self.normalised(weights @ v, weights.sum(axis=-1, keepdims=True))
        return self.o(told.swapaxes(1, 2).reshape(x.shape))


class Multiplied(Kernel):
    def normalised(self, sums, total):
        return sums * total


def f_denominator_multiplied():
    """The inverse of the denominator lacks its "one over": what should be divided by the sum of weights is multiplied
    with it."""
    return setup("denominator multiplied", lambda: Placed(attention=Multiplied))


def ok_denominator_multiplied():
    return setup("linear attention", lambda: Placed(attention=Kernel))


class Residual(nn.Module):
    """A causal convolution over three places ``reach`` apart, between activations, added to what it was made of."""

    def __init__(self, reach, in_place):
        super().__init__()
        self.reach, self.in_place = reach, in_place
        self.mix, self.out = nn.Conv1d(D, 2 * D, 3, dilation=reach), nn.Linear(2 * D, D)

    def __call__(self, x):
        active = nn.relu(x)
        if self.in_place:
            x = active
        mixed = self.mix(mx.pad(active, ((0, 0), (2 * self.reach, 0), (0, 0))))
        return x + self.out(nn.relu(mixed))


class Convolved(Story):
    def __init__(self, in_place):
        super().__init__(layers=0)
        self.blocks = [Residual(2**i, in_place) for i in range(4)]


def f_rectified_in_place():
    """A block's first ReLU writes over its input, so that the residual goes on from what is left of it."""
    return setup("rectified in place", lambda: Convolved(in_place=True))


def ok_rectified_in_place():
    return setup("residual convolutions", lambda: Convolved(in_place=False))
