"""Reported mistakes inside of models, and their mends."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
from base import Attention, D, H, Story, V, setup


class Plain(nn.Module):
    """A recurrent network whose cell reads the character and a state, from a first state that is learned."""

    def __init__(self, goes_on):
        super().__init__()
        self.embedding, self.head = nn.Embedding(V, D), nn.Linear(D, V)
        self.first, self.cell = mx.zeros((D,)), nn.Linear(2 * D, D)
        self.goes_on = goes_on

    def __call__(self, x):
        read, told = self.embedding(x), []
        state = mx.broadcast_to(self.first, (x.shape[0], D))
        for t in range(x.shape[1]):
            h = mx.tanh(self.cell(mx.concatenate([read[:, t], state], axis=-1)))
            if self.goes_on:
                state = h
            told.append(h)
        return self.head(mx.stack(told, axis=1))


def f_state_of_the_start():
    """The cell is always given the first state, never the one that it returned."""
    return setup("state of the start", lambda: Plain(goes_on=False))


def ok_state_of_the_start():
    return setup("state goes on", lambda: Plain(goes_on=True))


class Gated(nn.Module):
    """One step of a gated recurrent unit."""

    def __init__(self):
        super().__init__()
        self.read, self.recall = nn.Linear(D, 3 * D), nn.Linear(D, 3 * D)

    def __call__(self, x, h):
        reset, update, new = mx.split(self.read(x), 3, axis=-1)
        from_reset, from_update, from_new = mx.split(self.recall(h), 3, axis=-1)
        update = mx.sigmoid(update + from_update)
        return update * h + (1 - update) * mx.tanh(new + mx.sigmoid(reset + from_reset) * from_new)


class Layers(nn.Module):
    """Three gated layers, a character at a time: each has its state, or all of them hand on one."""

    def __init__(self, one):
        super().__init__()
        self.embedding, self.head = nn.Embedding(V, D), nn.Linear(D, V)
        self.cells = [Gated() for _ in range(3)]
        self.one = one

    def __call__(self, x):
        read, told = self.embedding(x), []
        states = [mx.zeros((x.shape[0], D))] * len(self.cells)
        for t in range(x.shape[1]):
            h, last = read[:, t], states[-1]
            for i, cell in enumerate(self.cells):
                h = last = states[i] = cell(h, last if self.one else states[i])
            told.append(h)
        return self.head(mx.stack(told, axis=1))


def f_one_state():
    """Each layer takes the state of the layer below for its own, and the first that of the last."""
    return setup("one state", lambda: Layers(one=True))


def ok_one_state():
    return setup("a state for each layer", lambda: Layers(one=False))


class Unreturned(Attention):
    """Scores are not divided, and what the output layer makes of the heads is not returned."""

    def __call__(self, x, cache=None):
        q, k, v = (self.heads(f(x)) for f in (self.q, self.k, self.v))
        q, k = self.turned(q, k, cache)
        if cache:
            k, v = cache.update(k, v)
        scores = q @ k.swapaxes(-1, -2) + self.bias(q.shape[2], k.shape[2])
        told = (self.weights(scores) @ v).swapaxes(1, 2).reshape(x.shape)
        self.o(told)
        return told


def f_output_not_returned():
    """The output layer of attention is called, and its input is returned; nor are the scores divided."""
    return setup("output not returned", lambda: Story(attention=Unreturned))


class Mixture(Story):
    """Logarithms of a mixture of three softmaxes, whose shares are a softmax over ``axis`` of [batch, time, kinds]."""

    def __init__(self, axis):
        super().__init__()
        self.head, self.share = nn.Linear(D, 3 * V), nn.Linear(D, 3)
        self.axis = axis

    def __call__(self, x, cache=None):
        h = self.embed(x)
        for i, block in enumerate(self.blocks):
            h = block(h, cache[i]) if cache else block(h)
        h = self.norm(h)
        kinds = self.head(h).reshape(*x.shape, 3, V)
        kinds = kinds - mx.logsumexp(kinds, axis=-1, keepdims=True)
        shares = self.share(h)
        shares = shares - mx.logsumexp(shares, axis=self.axis, keepdims=True)
        return mx.logsumexp(kinds + shares[..., None], axis=-2)


def as_told(logs, targets):
    """Nats of logarithms that are taken for those of probabilities."""
    return -mx.take_along_axis(logs, targets[..., None], axis=-1).squeeze(-1)


def mean_as_told(model, batch):
    x, y, mask = batch
    return (as_told(model(x), y) * mask).sum() / mask.sum()


def evaluate_as_told(model, batches):
    model.eval()
    total = right = count = 0.0
    for x, y, mask in batches:
        logs = model(x)
        total += (as_told(logs, y) * mask).sum().item()
        right += ((logs.argmax(-1) == y) * mask).sum().item()
        count += mask.sum().item()
    model.train()
    return {"loss": total / count, "accuracy": right / count}


def f_shares_over_the_batch():
    """The shares of a mixture add up to 1 over the batch, not over the kinds."""
    return setup("shares over the batch", lambda: Mixture(axis=0), mean_as_told, evaluate=evaluate_as_told)


def ok_shares_over_the_batch():
    return setup("shares over the kinds", lambda: Mixture(axis=-1), mean_as_told, evaluate=evaluate_as_told)


class Noughts(Attention):
    """What lies ahead has a score of 0."""

    def __call__(self, x, cache=None):
        q, k, v = (self.heads(f(x)) for f in (self.q, self.k, self.v))
        q, k = self.turned(q, k, cache)
        scores = q @ k.swapaxes(-1, -2) * (D // H) ** -0.5
        seen = mx.tril(mx.ones(scores.shape[-2:]), k=k.shape[2] - q.shape[2]) > 0
        weights = self.weights(mx.where(seen, scores, 0.0))
        return self.o((weights @ v).swapaxes(1, 2).reshape(x.shape))


def f_hidden_by_noughts():
    """The mask writes 0 where minus infinity should be, before the softmax."""
    return setup("hidden by noughts", lambda: Story(attention=Noughts))
