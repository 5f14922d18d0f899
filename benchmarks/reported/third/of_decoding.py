"""Reported mistakes of decoding, and their mends."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
from base import Attention, Cache, D, H, Story, setup, tell_cached
from buckets import Bucketed

W, GROUPS = 12, 2


class Dropping(Bucketed):
    """Has no bias for a single query."""

    def bias(self, queries, keys):
        return super().bias(queries, keys) if queries > 1 else mx.zeros((1, keys))


def f_bias_dropped():
    """The bias of distances is left out as soon as there is a cache."""
    return setup("bias dropped", lambda: Story(attention=Dropping), generate=tell_cached)


def ok_bias_dropped():
    return setup("bias kept", lambda: Story(attention=Bucketed), generate=tell_cached)


class Grouped(Attention):
    """Two heads of keys and values for four of queries, each for two neighbours."""

    def __init__(self):
        super().__init__()
        self.k, self.v = (nn.Linear(D, GROUPS * D // H, bias=False) for _ in range(2))

    def heads(self, x):
        return x.reshape(*x.shape[:2], -1, D // H).swapaxes(1, 2)

    def spread(self, a, queries):
        return mx.repeat(a, H // GROUPS, axis=1)

    def __call__(self, x, cache=None):
        q, k, v = (self.heads(f(x)) for f in (self.q, self.k, self.v))
        q, k = self.turned(q, k, cache)
        if cache:
            k, v = cache.update(k, v)
        k, v = (self.spread(a, q.shape[2]) for a in (k, v))
        scores = q @ k.swapaxes(-1, -2) * (D // H) ** -0.5 + self.bias(q.shape[2], k.shape[2])
        return self.o((self.weights(scores) @ v).swapaxes(1, 2).reshape(x.shape))


class GroupedApart(Grouped):
    """A single query has its keys in another order."""

    def spread(self, a, queries):
        return super().spread(a, queries) if queries > 1 else mx.tile(a, (1, H // GROUPS, 1, 1))


def f_groups_apart():
    """The prompt repeats each head of keys for its neighbours; a token after it goes round the heads."""
    return setup("groups in another order", lambda: Story(attention=GroupedApart), generate=tell_cached)


def ok_groups_apart():
    return setup("groups", lambda: Story(attention=Grouped), generate=tell_cached)


class Windowed(Attention):
    """Sees the last 12 places."""

    def bias(self, queries, keys):
        back = mx.arange(keys - queries, keys)[:, None] - mx.arange(keys)
        return mx.where((back >= 0) & (back < W), 0.0, -1e9)


class LastKept(Cache):
    """Keys and values of the last 12 places."""

    early = False

    def room(self, kept):
        """Without the first, and with an empty place at the end."""
        return mx.concatenate([kept[:, :, 1:], mx.zeros_like(kept[:, :, :1])], axis=2)

    def update(self, *new):
        if self.early and self.kept is not None and self.kept[0].shape[2] == W - 1:
            self.kept = tuple(self.room(kept) for kept in self.kept)
        seen = super().update(*new)
        self.kept = tuple(a[:, :, -W:] for a in seen)
        return seen if new[0].shape[2] > 1 else self.kept


class LostEarly(LastKept):
    early = True


def f_window_rolled_early():
    """The window makes room when one place is still free: the oldest key is lost, and an empty one is seen."""

    def generate(model, prompt, n):
        return tell_cached(model, prompt, n, LostEarly)

    return setup("window rolled early", lambda: Story(attention=Windowed), generate=generate)


def ok_window_rolled_early():
    def generate(model, prompt, n):
        return tell_cached(model, prompt, n, LastKept)

    return setup("window", lambda: Story(attention=Windowed), generate=generate)


def tell_twice(model, prompt, n):
    """Greedy, with a cache that holds the prompt before its last token is read again."""
    model.eval()
    cache, new, told = [Cache() for _ in model.blocks], list(prompt[-1:]), []
    model(mx.array([list(prompt)]), cache)
    for _ in range(n):
        new = [int(model(mx.array([new]), cache)[0, -1].argmax().item())]
        told += new
    model.train()
    return told


def f_last_read_twice():
    """What the prompt predicts is thrown away, and its last token is read a second time."""
    return setup("last token read twice", generate=tell_twice)
