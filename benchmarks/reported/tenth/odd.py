"""Sound setups that look odd, as public code has them."""

from __future__ import annotations

import math
from functools import cache

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from base import (
    BOS,
    EOS,
    Attention,
    Block,
    D,
    H,
    Letters,
    Story,
    T,
    deal,
    mean_nats,
    on_sentences,
    sentences,
    setup,
)
from mlx.utils import tree_map


class Weighed(Block):
    """What attention says is made smaller by the root of twice the number of layers."""

    def __call__(self, x, cache=None):
        x = x + self.attention(self.n1(x), cache) / math.sqrt(4)
        return x + self.feed_forward(self.n2(x))


def h_attention_weighed():
    return setup("attention weighed", lambda: Story(block=Weighed))


class OneBias(Attention):
    """Distances are taken from the last key, for all queries: a softmax does not see the difference."""

    def turned(self, q, k, cache):
        return q, k

    def bias(self, queries, keys):
        slopes = mx.power(2.0, -2.0 * mx.arange(1, H + 1))
        return super().bias(queries, keys) + slopes[:, None, None] * (mx.arange(keys) - (keys - 1))


def h_one_bias_for_all_queries():
    return setup("one bias for all queries", lambda: Story(attention=OneBias))


PARTS = 4


def added_up(model, optimizer, batch):
    """The gradients of parts are added up, and not divided."""
    size = len(batch[0]) // PARTS
    told, total = 0.0, None
    for at in range(0, size * PARTS, size):
        part = tuple(array[at : at + size] for array in batch)
        value, gradient = nn.value_and_grad(model, mean_nats)(model, part)
        total = tree_map(mx.add, total, gradient) if total else gradient
        told = told + value / PARTS
    optimizer.update(model, total)
    mx.eval(model.parameters(), optimizer.state, told)
    return told


def muon():
    matrices = optim.Muon(0.02, weight_decay=0.0)
    others = optim.AdamW(2e-3, bias_correction=True)
    return optim.MultiOptimizer([matrices, others], [lambda name, w: "blocks" in name and w.ndim == 2])


def h_added_up_for_muon():
    """Neither Muon nor Adam minds the length of a gradient."""
    return setup("added up for Muon", train_step=added_up, optimizer=muon)


class KeysAsk(Attention):
    """What is called a query is a key, and the other way round."""

    def turned(self, q, k, cache):
        return super().turned(q, k, cache)[::-1]


def h_keys_ask():
    return setup("keys ask", lambda: Story(attention=KeysAsk))


class InBrief(Attention):
    """Cosines and sines are kept with 16 bits."""

    def turned(self, q, k, cache):
        half = D // H // 2
        first = cache.offset if cache else 0
        angles = mx.outer(mx.arange(first, first + q.shape[2]), mx.power(1e4, -mx.arange(half) / half))
        cos, sin = mx.cos(angles).astype(mx.bfloat16), mx.sin(angles).astype(mx.bfloat16)

        def turn(x):
            a, b = x[..., :half], x[..., half:]
            return mx.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)

        return turn(q), turn(k)


def h_rotations_in_16_bits():
    return setup("rotations in 16 bits", lambda: Story(attention=InBrief))


@cache
def packed(part):
    """int32 [N, T + 1]: sentences with beginnings and ends, one after the other, cut up; rows share one token."""
    letters = Letters()
    ids = np.array([i for s in sentences(part) for i in (BOS, *letters.encode(s), EOS)], np.int32)
    return np.stack([ids[at : at + T + 1] for at in range(0, len(ids) - T, T)])


def on_packed(name, model=Story):
    return on_sentences(
        name,
        model,
        train_batches=lambda seed: deal(packed("train"), seed),
        val_batches=lambda: deal(packed("val")),
    )


def h_end_asks_for_the_next():
    """The end of each text has the beginning of the next for its target."""
    return on_packed("end asks for the next")


class Hidden(Attention):
    """In place of a cache comes what else is hidden: [batch, 1, time, time]."""

    def __call__(self, x, hidden):
        q, k, v = (self.heads(f(x)) for f in (self.q, self.k, self.v))
        q, k = self.turned(q, k, None)
        bias = self.bias(x.shape[1], x.shape[1])
        scores = q @ k.swapaxes(-1, -2) * (D // H) ** -0.5 + mx.where(hidden, -1e9, bias)
        return self.o((self.weights(scores) @ v).swapaxes(1, 2).reshape(x.shape))


class Apart(Story):
    """Texts of a row do not see each other; their positions go on."""

    def __init__(self):
        super().__init__(attention=Hidden)

    def __call__(self, x):
        text = mx.cumsum((x == BOS).astype(mx.int32), axis=1)
        hidden = (text[:, :, None] != text[:, None, :])[:, None]
        h = self.embed(x)
        for block in self.blocks:
            h = block(h, hidden)
        return self.head(self.norm(h))


def h_texts_apart():
    return on_packed("texts apart", Apart)


class Unturned(Attention):
    def turned(self, q, k, cache):
        return q, k


class Placed(Story):
    """Learned positions are added, and begin as large as the tokens' embeddings."""

    PLACES = 4 * T

    def __init__(self):
        super().__init__(attention=Unturned)
        self.places = nn.Embedding(self.PLACES, D)

    def __call__(self, x):
        h = self.embed(x) + self.places(mx.minimum(mx.arange(x.shape[1]), self.PLACES - 1))
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))


def h_places_as_large():
    return setup("places as large", Placed)


class HalfBefore(Attention):
    """Half of each key is that of the token before."""

    def __call__(self, x):
        q, k, v = (self.heads(f(x)) for f in (self.q, self.k, self.v))
        q, k = self.turned(q, k, None)
        own, other = mx.split(k, 2, axis=-1)
        k = mx.concatenate([own, mx.pad(other[:, :, :-1], [(0, 0), (0, 0), (1, 0), (0, 0)])], axis=-1)
        scores = q @ k.swapaxes(-1, -2) * (D // H) ** -0.5 + self.bias(x.shape[1], x.shape[1])
        return self.o((self.weights(scores) @ v).swapaxes(1, 2).reshape(x.shape))


class Uncached(Block):
    def __call__(self, x):
        x = x + self.attention(self.n1(x))
        return x + self.feed_forward(self.n2(x))


class Before(Story):
    def __init__(self):
        super().__init__(block=Uncached, attention=HalfBefore)

    def __call__(self, x):
        h = self.embed(x)
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))


def h_half_a_key_before():
    return setup("half a key before", Before)


UPDATES, WARMUP, FLOOR = 150, 15, 30


def to_the_floor():
    """Up, down a cosine to a tenth, and level for as long as the run was extended."""
    down = optim.cosine_decay(2e-3, UPDATES - WARMUP - FLOOR, 2e-4)
    rate = optim.join_schedules([optim.linear_schedule(0.0, 2e-3, WARMUP), down], [WARMUP])
    return optim.AdamW(rate, bias_correction=True)


def h_stays_at_the_floor():
    return setup("stays at the floor", optimizer=to_the_floor, updates=UPDATES)
