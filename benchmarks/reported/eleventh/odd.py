"""Sound setups that look odd, as public code has them."""

from __future__ import annotations

from functools import cache

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from base import (
    BOS,
    EOS,
    PAD,
    Attention,
    D,
    H,
    Letters,
    Story,
    T,
    V,
    deal,
    mean_nats,
    on_sentences,
    padded,
    sentences,
    setup,
    windows,
)


def token_before(x):
    """[batch, time, D], each place with what stood before it, the first with nothing."""
    return mx.pad(x[:, :-1], [(0, 0), (1, 0), (0, 0)])


class Shifted(Story):
    """Branches read a mixture of a token and the one before it; shares are any numbers, and may lie beyond both."""

    def __init__(self):
        super().__init__()
        self.shares = mx.random.uniform(-0.5, 1.5, (4, D))

    def __call__(self, x):
        h = self.embed(x)

        def mixed(y, share):
            return y + (token_before(y) - y) * share

        for i, block in enumerate(self.blocks):
            h = h + block.attention(mixed(block.n1(h), self.shares[2 * i]))
            h = h + block.feed_forward(mixed(block.n2(h), self.shares[2 * i + 1]))
        return self.head(self.norm(h))


def h_shift_beyond_both():
    return setup("shift beyond both", Shifted)


@cache
def packed(part):
    """int32 [N, T + 1]: sentences with beginnings and ends, one after the other, cut up."""
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


class Smeared(Story):
    """A learned share of the embedding before is added to each, that of the last text's end to a beginning, too."""

    def __init__(self):
        super().__init__()
        self.share = mx.array([0.2])

    def embed(self, x):
        h = self.embedding(x)
        return h + self.share * token_before(h)


def h_smeared_over_beginnings():
    return on_packed("smeared over beginnings", Smeared)


class Wide(Story):
    def __init__(self):
        super().__init__()
        self.embedding.weight = 0.6 * mx.random.normal((V, D))


def h_wide_embeddings():
    return setup("wide embeddings", Wide)


class Tiled(Attention):
    """Two heads of keys and values for four of queries: the first for the first and third."""

    def __init__(self):
        super().__init__()
        self.k, self.v = nn.Linear(D, D // 2, bias=False), nn.Linear(D, D // 2, bias=False)

    def __call__(self, x, cache=None):
        q = self.heads(self.q(x))
        k, v = (f(x).reshape(*x.shape[:2], H // 2, D // H).swapaxes(1, 2) for f in (self.k, self.v))
        q, k = self.turned(q, k, cache)
        k, v = (mx.concatenate([y, y], axis=1) for y in (k, v))
        scores = q @ k.swapaxes(-1, -2) * (D // H) ** -0.5 + self.bias(x.shape[1], x.shape[1])
        return self.o((self.weights(scores) @ v).swapaxes(1, 2).reshape(x.shape))


class Uncached(Story):
    def __call__(self, x):
        return super().__call__(x)


def h_key_heads_tiled():
    return setup("key heads tiled", lambda: Uncached(attention=Tiled))


class Hidden(Attention):
    """Does not see what is hidden: [batch, 1, 1, time]."""

    def __call__(self, x, hidden):
        q, k, v = (self.heads(f(x)) for f in (self.q, self.k, self.v))
        q, k = self.turned(q, k, None)
        scores = q @ k.swapaxes(-1, -2) * (D // H) ** -0.5 + self.bias(x.shape[1], x.shape[1])
        return self.o(
            (self.weights(scores + mx.where(hidden, -1e9, 0.0)) @ v).swapaxes(1, 2).reshape(x.shape)
        )


class HidingPadding(Story):
    def __init__(self):
        super().__init__(attention=Hidden)

    def __call__(self, x):
        h, hidden = self.embed(x), (x == PAD)[:, None, None]
        for block in self.blocks:
            h = h + block.attention(block.n1(h), hidden)
            h = h + block.feed_forward(block.n2(h))
        return self.head(self.norm(h))


@cache
def padded_at_the_left(part):
    """int32 [N, T + 1]: padding, beginning, sentence, end."""
    return np.stack([np.roll(row, (row == PAD).sum()) for row in padded(part)])


def h_padded_at_the_left():
    """Places count from the row's first column; a rotation sees differences alone."""

    def real(rows):
        return rows[:, :-1] != PAD

    return on_sentences(
        "padded at the left",
        HidingPadding,
        train_batches=lambda seed: deal(padded_at_the_left("train"), seed, real),
        val_batches=lambda: deal(padded_at_the_left("val"), None, real),
    )


class Unturned(Attention):
    def turned(self, q, k, cache):
        return q, k


class BeginningAgain(Story):
    """Learned places count from each text's beginning, and attention sees the texts before it."""

    PLACES = 4 * T

    def __init__(self):
        super().__init__(attention=Unturned)
        self.places = nn.Embedding(self.PLACES, D)

    def __call__(self, x):
        at = mx.broadcast_to(mx.arange(x.shape[1]), x.shape)
        begun = mx.cummax(mx.where(x == BOS, at, 0), axis=1)
        h = self.embed(x) + self.places(mx.minimum(at - begun, self.PLACES - 1))
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))


def h_places_begin_again():
    return on_packed("places begin again", BeginningAgain)


def clipped_afterwards(model, optimizer, batch):
    """What is clipped is thrown away: there is no limit."""
    value, gradient = nn.value_and_grad(model, mean_nats)(model, batch)
    optimizer.update(model, gradient)
    gradient, _ = optim.clip_grad_norm(gradient, 1.0)
    mx.eval(model.parameters(), optimizer.state, value)
    return value


def h_clipped_afterwards():
    return setup("clipped afterwards", train_step=clipped_afterwards)


def h_cosine_without_end():
    """Ten million updates: over the run the rate is the peak."""
    return setup(
        "cosine without end",
        optimizer=lambda: optim.AdamW(optim.cosine_decay(2e-3, 10_000_000), bias_correction=True),
        updates=150,
    )


def h_in_the_order_of_the_text():
    return setup("in the order of the text", train_batches=lambda seed: deal(windows("train")))
