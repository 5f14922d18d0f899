"""Reported mistakes inside of models, and their mends."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
from base import Attention, D, Story, V, setup


class Unturned(Attention):
    def turned(self, q, k, cache):
        return q, k


class Placed(Story):
    """Sines and cosines of the place, of amplitude 1, are added to embeddings of a standard deviation."""

    def __init__(self, frequencies, spread, times=1.0):
        super().__init__(attention=Unturned)
        self.embedding.weight = mx.random.normal((V, D)) * spread
        self.frequencies, self.times = frequencies.tolist(), times

    def embed(self, x):
        angles = mx.arange(x.shape[1])[:, None] * mx.array(self.frequencies)
        table = mx.stack([mx.sin(angles), mx.cos(angles)], axis=-1).reshape(x.shape[1], D)
        return self.times * self.embedding(x) + table


FALLING = 10000.0 ** -(mx.arange(0, D, 2) / D)


def f_one_frequency():
    """The logarithms of the frequencies are computed with whole numbers, and cut to 0: all frequencies are 1, and the
    places are told apart by a sine and a cosine alone."""
    return setup("one frequency", lambda: Placed(mx.ones(D // 2), 1.0))


def ok_one_frequency():
    return setup("falling frequencies", lambda: Placed(FALLING, 1.0))


def f_drowned_by_places():
    """Embeddings of length 1 are not multiplied with the root of the width before sines and cosines of length
    sqrt(D / 2) are added to them."""
    return setup("drowned by places", lambda: Placed(FALLING, D**-0.5))


def ok_drowned_by_places():
    return setup("scaled embeddings", lambda: Placed(FALLING, D**-0.5, D**0.5))


class Swapped(nn.LayerNorm):
    def __init__(self):
        super().__init__(D)
        self.weight, self.bias = mx.zeros((D,)), mx.ones((D,))


def f_gain_and_shift_swapped():
    """Gains of the layer norms begin at 0 and shifts at 1: each tells nothing but ones."""
    return setup("gain and shift swapped", lambda: Story(norm=Swapped))


def ok_gain_and_shift_swapped():
    return setup("layer norms", lambda: Story(norm=lambda: nn.LayerNorm(D)))


class Memory(nn.Module):
    """The first LSTM, which forgets nothing: the cell adds up what the input gate lets in."""

    def __init__(self, added):
        super().__init__()
        self.embedding, self.head = nn.Embedding(V, D), nn.Linear(D, V)
        self.read, self.recall = nn.Linear(D, 3 * D), nn.Linear(D, 3 * D, bias=False)
        self.added = added

    def __call__(self, x):
        read, told = self.read(self.embedding(x)), []
        h = c = mx.zeros((x.shape[0], D))
        for t in range(x.shape[1]):
            way_in, new, out = mx.split(read[:, t] + self.recall(h), 3, axis=-1)
            way_in, new = mx.sigmoid(way_in), mx.tanh(new)
            c = c + (way_in + new if self.added else way_in * new)
            h = mx.sigmoid(out) * mx.tanh(c)
            told.append(h)
        return self.head(mx.stack(told, axis=1))


def f_gate_added():
    """The input gate is added to what it should be multiplied with: the cell grows with each step."""
    return setup("gate added", lambda: Memory(added=True))


def ok_gate_added():
    return setup("gate multiplied", lambda: Memory(added=False))


class Dropping(Attention):
    """Weights are dropped in training, by a path of its own; ``masked`` says whether that path has the mask."""

    def __init__(self, masked):
        super().__init__()
        self.masked, self.drop = masked, nn.Dropout(0.1)

    def bias(self, queries, keys):
        hidden = super().bias(queries, keys)
        return hidden if self.masked or not self.training else mx.zeros_like(hidden)

    def weights(self, scores):
        return self.drop(super().weights(scores))


def f_unmasked_with_dropout():
    """The fast attention is causal by itself; with dropout, in training, a slow path is taken, which is not handed the
    mask."""
    return setup("unmasked with dropout", lambda: Story(attention=lambda: Dropping(masked=False)))


def ok_unmasked_with_dropout():
    return setup("masked with dropout", lambda: Story(attention=lambda: Dropping(masked=True)))
