"""Sound setups whose data look odd, as public code has them."""

from __future__ import annotations

from functools import cache

import mlx.core as mx
import numpy as np
from base import (
    HELD,
    PAD,
    TOLD,
    Attention,
    B,
    Letters,
    Story,
    T,
    V,
    deal,
    on_sentences,
    padded,
    setup,
    windows,
)


@cache
def apart(part):
    """int32 [N, T + 1]: windows that share no token, so that one in 49 is never a target."""
    ids = np.array(Letters().encode(" ".join(TOLD if part == "train" else HELD)), np.int32)
    return np.stack([ids[at : at + T + 1] for at in range(0, len(ids) - T - 1, T + 1)])


def h_windows_apart():
    """Blocks of one token more than a row, from which inputs and targets are cut."""
    return setup(
        "windows apart",
        train_batches=lambda seed: deal(apart("train"), seed),
        val_batches=lambda: deal(apart("val")),
    )


@cache
def stream():
    return np.array(Letters().encode(" ".join(TOLD)), np.int32)


def drawn(seed, batches=60):
    """Windows drawn anywhere, with replacement."""
    rng = np.random.default_rng(seed)
    for _ in range(batches):
        starts = rng.integers(0, len(stream()) - T - 1, B)
        rows = np.stack([stream()[start : start + T + 1] for start in starts])
        yield mx.array(rows[:, :-1]), mx.array(rows[:, 1:]), mx.ones((B, T))


def h_windows_drawn():
    """An "epoch" is a number of draws: some text is drawn twice, and some not at all."""
    return setup("windows drawn", train_batches=drawn)


class Backward(Letters):
    """Characters from the last to the first."""

    def encode(self, text):
        return super().encode(text)[::-1]

    def decode(self, ids):
        return super().decode(ids)[::-1]


@cache
def backward(part):
    """int32 [N, T + 1]: sentences from their ends."""
    table = padded(part).copy()
    for row in table:
        n = int((row != PAD).sum()) - 2
        row[1 : n + 1] = row[1 : n + 1][::-1].copy()
    return table


def h_backward():
    """A model of texts from right to left."""
    return on_sentences(
        "backward",
        tokenizer=Backward(),
        train_batches=lambda seed: deal(backward("train"), seed),
        val_batches=lambda: deal(backward("val")),
    )


ASK = V  # a further id, between what is given and what is asked for


class Prefixed(Attention):
    """Sees all that is given, and of the rest what came before."""

    def __init__(self):
        super().__init__()
        self._given = None

    def bias(self, queries, keys):
        causal = mx.tril(mx.ones((queries, keys)), k=keys - queries) > 0
        both = self._given[:, None, :, None] & self._given[:, None, None, :]
        return mx.where(causal | both, 0.0, -1e9)


class PrefixStory(Story):
    def __init__(self):
        super().__init__(attention=Prefixed, size=V + 1)

    def __call__(self, x, cache=None):
        asked = mx.cumsum(x == ASK, axis=1)
        first = (asked == 0) | ((asked == 1) & (x == ASK))
        for block in self.blocks:
            block.attention._given = first & (asked[:, -1:] > 0)
        return super().__call__(x)


class Asking(Letters):
    vocab_size = V + 1

    def decode(self, ids):
        return super().decode([i for i in map(int, ids) if i < V])


@cache
def prefixed(part):
    """int32 [N, T + 2]: beginning, a third of a sentence, the sign that asks, the rest, the end, padding."""
    rows = np.full((len(padded(part)), T + 2), PAD, np.int32)
    for row, old in zip(rows, padded(part), strict=True):
        third = max(2, int((old != PAD).sum()) // 3)
        row[:third], row[third], row[third + 1 :] = old[:third], ASK, old[third:]
    return rows[:, : T + 1]


def after_the_sign(rows):
    return (np.cumsum(rows[:, :-1] == ASK, axis=1) > 0) & (rows[:, 1:] != PAD)


def h_prefix():
    """What is given is seen from both sides, and only what comes after it is asked for."""
    return on_sentences(
        "prefix",
        PrefixStory,
        vocab_size=V + 1,
        tokenizer=Asking(),
        train_batches=lambda seed: deal(prefixed("train"), seed, after_the_sign),
        val_batches=lambda: deal(prefixed("val"), None, after_the_sign),
    )


def growing(seed):
    """Rows of 12 tokens at first, then of 24, then of 48: the same text cut more finely."""
    order = np.random.default_rng(seed).permutation(len(windows("train")))
    parts = np.array_split(order, 3)
    for length, part in zip((12, 24, 48), parts, strict=True):
        rows = windows("train")[part]
        cut = [rows[:, at : at + length + 1] for at in range(0, T, length)]
        yield from deal(np.concatenate(cut), seed)


def h_growing_rows():
    """Short rows first, full ones at the end of an epoch."""
    return setup("growing rows", train_batches=growing)
