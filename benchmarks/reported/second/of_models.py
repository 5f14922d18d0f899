"""Reported mistakes inside of models, and their mends."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
from base import Attention, Block, D, FeedForward, H, Story, V, setup


class TurnedByHand(Attention):
    """Rotations of queries and keys by the halves of a head's channels; ``table`` lays out the angles of pairs."""

    table = staticmethod(lambda angles: mx.concatenate([angles, angles], axis=-1))

    def turned(self, q, k, cache):
        first, d = (cache.offset if cache else 0), D // H
        rates = 10000.0 ** (-mx.arange(0, d, 2) / d)
        angles = self.table((first + mx.arange(q.shape[2]))[:, None] * rates)

        def turn(a):
            left, right = mx.split(a, 2, axis=-1)
            return a * mx.cos(angles) + mx.concatenate([-right, left], axis=-1) * mx.sin(angles)

        return turn(q), turn(k)


class PairsMixed(TurnedByHand):
    table = staticmethod(lambda angles: mx.repeat(angles, 2, axis=-1))


def f_pairs_mixed():
    """Angles are laid out for neighbouring channels, and the rotation pairs the halves: no pair turns by one
    angle."""
    return setup("pairs mixed", lambda: Story(attention=PairsMixed))


def ok_pairs_mixed():
    return setup("pairs of halves", lambda: Story(attention=TurnedByHand))


class Dropout(nn.Module):
    """Takes away a share of 0.1; what is left is divided by ``scale``."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def __call__(self, x):
        return x * mx.random.bernoulli(0.9, x.shape) / self.scale if self.training else x


class Dropping(Block):
    def __init__(self, scale, **parts):
        super().__init__(**parts)
        self.drop = Dropout(scale)

    def __call__(self, x, cache=None):
        x = x + self.drop(self.attention(self.n1(x), cache))
        return x + self.drop(self.feed_forward(self.n2(x)))


def f_divided_by_dropped():
    """Dropout divides by the share that it takes away instead of by the share that stays."""
    return setup("divided by what is dropped", lambda: Story(block=Dropping, scale=0.1))


def ok_divided_by_dropped():
    return setup("divided by what stays", lambda: Story(block=Dropping, scale=0.9))


class Experts(nn.Module):
    """Four feed-forwards, of which a softmax of ``seen`` makes a weighted sum."""

    def __init__(self, seen):
        super().__init__()
        self.router = nn.Linear(D, 4, bias=False)
        self.experts = [FeedForward() for _ in range(4)]
        self.seen = seen

    def __call__(self, x):
        weights = mx.softmax(self.router(self.seen(x)), axis=-1)
        return sum(weights[..., i : i + 1] * expert(x) for i, expert in enumerate(self.experts))


class Routed(Block):
    def __init__(self, seen, **parts):
        super().__init__(**parts)
        self.feed_forward = Experts(seen)


def f_routed_by_mean():
    """Experts are weighted by the mean of the whole row, its later tokens included."""
    return setup("routed by the row", lambda: Story(block=Routed, seen=lambda x: x.mean(1, keepdims=True)))


def ok_routed_by_mean():
    return setup("routed by the token", lambda: Story(block=Routed, seen=lambda x: x))


class Recurrent(nn.Module):
    """A gated recurrent layer between embedding and output; ``kept`` begins a batch where the last one ended."""

    def __init__(self, size, kept=False):
        super().__init__()
        self.embedding, self.layer = nn.Embedding(size, D), nn.GRU(D, 2 * D)
        self.head = nn.Linear(2 * D, size)
        self.kept, self._last = kept, None

    def __call__(self, x):
        before = self._last if self._last is not None and len(self._last) == len(x) else None
        states = self.layer(self.embedding(x), before)
        if self.kept:
            self._last = mx.stop_gradient(states[:, -1])
        return self.head(states)


def recurrent(kept):
    return lambda: Recurrent(V, kept)


def f_state_between_batches():
    """The recurrent state goes on from one batch to the next, and batches are shuffled."""
    return setup("state kept between batches", recurrent(True))


def ok_state_between_batches():
    return setup("state from nothing", recurrent(False))


class NormedToNought(Story):
    def __init__(self):
        super().__init__()
        self.norm.weight = mx.zeros((D,))


def f_norm_at_nought():
    """The last norm's weight is an offset from 1 everywhere else, and so begins at 0, but is used as it is here: all
    logits are 0."""
    return setup("last norm at 0", NormedToNought)
