"""Reported mistakes of decoding, and their mends."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
from base import Attention, Cache, D, Story, T, setup, tell_cached


class Remembering(Story):
    """Its caches live in it."""

    def __init__(self):
        super().__init__()
        self._caches = None


def with_own_caches(cleared):
    def generate(model, prompt, n):
        if cleared or model._caches is None:
            model._caches = [Cache() for _ in model.blocks]
        caches = iter(model._caches)
        return tell_cached(model, prompt, n, lambda: next(caches))

    return generate


def f_cache_left_over():
    """The cache is kept in the model and not cleared: a text goes on from the one before."""
    return setup("cache left over", Remembering, generate=with_own_caches(False))


def ok_cache_left_over():
    return setup("cache cleared", Remembering, generate=with_own_caches(True))


class Unturned(Attention):
    def turned(self, q, k, cache):
        return q, k


class Counting(Story):
    """Learned positions, counted on while decoding with a cache; ``forgets`` starts again from 0 without one."""

    def __init__(self, forgets):
        super().__init__(attention=Unturned)
        self.places, self.forgets = nn.Embedding(4 * T, D), forgets
        self._at = 0

    def __call__(self, x, cache=None):
        first = self._at
        if cache:
            first = cache[0].offset
            self._at = first + x.shape[1]
        elif self.forgets:
            first = 0
        places = mx.minimum(first + mx.arange(x.shape[1]), 4 * T - 1)
        h = self.embedding(x) + self.places(places)
        for i, block in enumerate(self.blocks):
            h = block(h, cache[i]) if cache else block(h)
        return self.head(self.norm(h))


def f_counter_left_over():
    """The count of positions stays where decoding has left it, and what is trained and validated after a text was
    told begins there."""
    return setup("counter left over", lambda: Counting(forgets=False), generate=tell_cached)


def ok_counter_left_over():
    return setup("counter at 0", lambda: Counting(forgets=True), generate=tell_cached)


def tell_penalised(model, prompt, n, penalty=1.3):
    """Greedy; the logits of what was said before are divided."""
    model.eval()
    ids = list(prompt)
    for _ in range(n):
        logits = model(mx.array([ids]))[0, -1]
        said = (mx.arange(len(logits)) == mx.array(ids)[:, None]).any(axis=0)
        ids.append(int(mx.where(said, logits / penalty, logits).argmax().item()))
    model.train()
    return ids[len(prompt) :]


def f_penalty_divides():
    """A penalty on repetition, on by default, divides logits whatever their sign: negative ones are raised."""
    return setup("penalty divides", generate=tell_penalised)
