"""Reported mistakes inside of models, and their mends."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
from base import Block, D, Story, V, setup


class Peeping(nn.Module):
    """An LSTM whose gates look at the cell, too: ``open_at`` makes the output gate of what it read and of its look."""

    def __init__(self, open_at):
        super().__init__()
        self.embedding, self.head = nn.Embedding(V, D), nn.Linear(D, V)
        self.read, self.recall = nn.Linear(D, 4 * D), nn.Linear(D, 4 * D, bias=False)
        self.look = 0.1 * mx.random.normal((3, D))
        self.open_at = open_at

    def __call__(self, x):
        read, told = self.read(self.embedding(x)), []
        h = c = mx.zeros((x.shape[0], D))
        for t in range(x.shape[1]):
            enter, keep, new, leave = mx.split(read[:, t] + self.recall(h), 4, axis=-1)
            enter, keep = mx.sigmoid(enter + self.look[0] * c), mx.sigmoid(keep + self.look[1] * c)
            c = keep * c + enter * mx.tanh(new)
            h = self.open_at(leave, self.look[2] * c) * mx.tanh(c)
            told.append(h)
        return self.head(mx.stack(told, axis=1))


def f_look_after_sigmoid():
    """The output gate's look at the cell is added when the gate is between 0 and 1 already: it is any number."""
    return setup("look after sigmoid", lambda: Peeping(lambda gate, look: mx.sigmoid(gate) + look))


def ok_look_after_sigmoid():
    return setup("look before sigmoid", lambda: Peeping(lambda gate, look: mx.sigmoid(gate + look)))


class Exponential(nn.Module):
    """A recurrent network with an exponential input gate, whose sums are divided by the gates' own; at the start all is
    kept for a long time."""

    def __init__(self, swapped):
        super().__init__()
        self.embedding, self.head = nn.Embedding(V, D), nn.Linear(D, V)
        self.enter, self.keep, self.new, self.leave = (nn.Linear(D, D) for _ in range(4))
        self.recall = nn.Linear(D, 4 * D, bias=False)
        self.enter.bias, self.keep.bias = mx.zeros((D,)), mx.linspace(3.0, 6.0, D)
        self.swapped = swapped

    def __call__(self, x):
        h = self.embedding(x)
        enter, keep = self.enter(h), self.keep(h)
        if self.swapped:
            enter, keep = keep, enter
        read = mx.concatenate([enter, keep, self.new(h), self.leave(h)], axis=-1)
        h = c = n = mx.zeros((x.shape[0], D))
        most, told = mx.full((x.shape[0], D), -1e9), []
        for t in range(x.shape[1]):
            enter, keep, new, leave = mx.split(read[:, t] + self.recall(h), 4, axis=-1)
            keep = nn.log_sigmoid(keep) + most
            most = mx.maximum(keep, enter)
            enter, keep = mx.exp(enter - most), mx.exp(keep - most)
            c, n = keep * c + enter * mx.tanh(new), keep * n + enter
            h = mx.sigmoid(leave) * c / n
            told.append(h)
        return self.head(mx.stack(told, axis=1))


def f_gates_swapped():
    """What is meant to keep is given to the input gate, and the other way round: at the start half is forgotten at each
    character."""
    return setup("gates swapped", lambda: Exponential(swapped=True))


def ok_gates_swapped():
    return setup("gates in order", lambda: Exponential(swapped=False))


class WithoutStream(Block):
    """No norms either, to leave unused."""

    def __init__(self):
        super().__init__()
        del self.n1, self.n2

    def __call__(self, x, cache=None):
        return self.feed_forward(self.attention(x, cache))


def f_without_stream():
    """Blocks have neither norms nor anything that their branches are added to."""
    return setup("without stream", lambda: Story(WithoutStream))
