"""Sound setups that look odd, as public code has them."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from base import Attention, D, H, Story, T, V, deal, mean_nats, nats, setup, windows
from mlx.utils import tree_map


class Summed(Attention):
    """Values of each head are as wide as the stream, and the heads are added up: no output layer."""

    def __init__(self):
        super().__init__()
        self.v, self.o = nn.Linear(D, H * D, bias=False), nn.Identity()

    def heads(self, x):
        return x.reshape(*x.shape[:2], H, -1).swapaxes(1, 2)

    def __call__(self, x, cache=None):
        q, k, v = (self.heads(f(x)) for f in (self.q, self.k, self.v))
        q, k = self.turned(q, k, cache)
        scores = q @ k.swapaxes(-1, -2) * (D // H) ** -0.5 + self.bias(q.shape[2], k.shape[2])
        return (self.weights(scores) @ v).sum(axis=1) * H**-0.5


def h_heads_summed():
    return setup("heads summed", lambda: Story(attention=Summed))


class Coupled(nn.Module):
    """An LSTM that forgets as much as it reads."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(V, D), nn.Linear(D, V)
        self.read, self.recall = nn.Linear(D, 3 * D), nn.Linear(D, 3 * D, bias=False)

    def __call__(self, x):
        read, told = self.read(self.embedding(x)), []
        h = c = mx.zeros((x.shape[0], D))
        for t in range(x.shape[1]):
            enter, new, leave = mx.split(read[:, t] + self.recall(h), 3, axis=-1)
            enter = mx.sigmoid(enter)
            c = (1 - enter) * c + enter * mx.tanh(new)
            h = mx.sigmoid(leave) * mx.tanh(c)
            told.append(h)
        return self.head(mx.stack(told, axis=1))


def h_coupled_gates():
    """No forget gate of its own."""
    return setup("coupled gates", Coupled)


def for_each_row(model, batch):
    x, y, mask = batch
    return (nats(model(x), y) * mask).sum() / len(x)


def h_sum_over_characters():
    """The loss of a row is the sum of its characters'; all rows are of one length."""
    return setup("sum over characters", loss=for_each_row)


class ZonedOut(nn.Module):
    """A GRU that keeps a tenth of its state by chance while it learns, and a tenth of all of it otherwise."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(V, D), nn.Linear(D, V)
        self.read, self.recall = nn.Linear(D, 3 * D), nn.Linear(D, 3 * D)

    def __call__(self, x):
        read, told = self.read(self.embedding(x)), []
        h = mx.zeros((x.shape[0], D))
        for t in range(x.shape[1]):
            reset, update, new = mx.split(read[:, t], 3, axis=-1)
            from_reset, from_update, from_new = mx.split(self.recall(h), 3, axis=-1)
            update = mx.sigmoid(update + from_update)
            new = mx.tanh(new + mx.sigmoid(reset + from_reset) * from_new)
            kept = mx.random.uniform(shape=h.shape) < 0.1 if self.training else 0.1
            h = kept * h + (1 - kept) * (update * h + (1 - update) * new)
            told.append(h)
        return self.head(mx.stack(told, axis=1))


def h_zoned_out():
    return setup("zoned out", ZonedOut)


def noisy(model, optimizer, batch):
    value, gradient = nn.value_and_grad(model, mean_nats)(model, batch)
    width = 1e-4 / (1 + optimizer.step.item()) ** 0.55
    gradient = tree_map(lambda g: g + width * mx.random.normal(g.shape), gradient)
    optimizer.update(model, gradient)
    mx.eval(model.parameters(), optimizer.state, value)
    return value


def h_gradient_noise():
    """Noise, less of it with each update, is added to gradients."""
    return setup("gradient noise", train_step=noisy)


class Shared(Attention):
    """Queries are keys; keys are brought to the length of one."""

    def __init__(self):
        super().__init__()
        del self.k

    def __call__(self, x, cache=None):
        q, v = self.heads(self.q(x)), self.heads(self.v(x))
        q, k = self.turned(q, q * mx.rsqrt((q * q).sum(axis=-1, keepdims=True) + 1e-6), cache)
        scores = q @ k.swapaxes(-1, -2) + self.bias(q.shape[2], k.shape[2])
        return self.o((self.weights(scores) @ v).swapaxes(1, 2).reshape(x.shape))


def h_queries_are_keys():
    return setup("queries are keys", lambda: Story(attention=Shared))


class OneHot(Story):
    """No embedding: a character is a 1 among zeros, as wide as the stream."""

    def __init__(self):
        super().__init__()
        del self.embedding

    def embed(self, x):
        return (x[..., None] == mx.arange(D)).astype(mx.float32)


def h_one_hot():
    return setup("one-hot characters", OneHot)


def of_any_length(seed):
    """Each batch is cut after a number of characters that is drawn, half of a row or more."""
    rng = np.random.default_rng(seed)
    for batch in deal(windows("train"), seed):
        n = int(rng.integers(T // 2, T + 1))
        yield tuple(part[:, :n] for part in batch)


def h_lengths_drawn():
    return setup("lengths drawn", train_batches=of_any_length)


class Shaken(Story):
    """Noise is added to embeddings while the model learns."""

    def embed(self, x):
        h = self.embedding(x)
        if self.training:
            h = h + mx.random.uniform(-1, 1, h.shape) * 5 / (x.shape[1] * D) ** 0.5
        return h


def h_noise_in_embeddings():
    return setup("noise in embeddings", Shaken)


def by_value(model, optimizer, batch):
    value, gradient = nn.value_and_grad(model, mean_nats)(model, batch)
    optimizer.update(model, tree_map(lambda g: mx.clip(g, -0.01, 0.01), gradient))
    mx.eval(model.parameters(), optimizer.state, value)
    return value


def h_clipped_by_value():
    """Each element of a gradient is kept between two bounds."""
    return setup("clipped by value", train_step=by_value)
