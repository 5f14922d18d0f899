"""Reported mistakes of data, losses, validation and decoding, and their mends."""

from __future__ import annotations

import re
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
    deal,
    evaluate,
    mean_nats,
    nats,
    setup,
    tell_cached,
    windows,
)

from mlxstories.data.source import texts


def first_for_ever(seed):
    """As many batches as an epoch has, each from a new iterator."""
    for _ in range(len(windows("train")) // B):
        yield next(deal(windows("train")))


def f_first_for_ever():
    """The loop asks for a new iterator each time, and for its first batch."""
    return setup("first for ever", train_batches=first_for_ever)


def listed(text):
    """The words of each sentence in the order of the alphabet."""
    return " ".join(", ".join(sorted(re.findall(r"[a-z]+", sentence))) + "." for sentence in text.split(". "))


@cache
def kinds(part):
    """Stories, and lists of their words."""
    stories = texts(900, "kinds") if part == "train" else texts(40, "kinds, held out")
    known = set("".join(TOLD + HELD))
    stories = [story for story in stories if set(story) <= known]
    return stories, [listed(story) for story in stories]


@cache
def of_kinds(part):
    """int32 [N, T + 1] of each kind."""
    told = []
    for some in kinds(part):
        ids = np.array(Letters().encode(" ".join(some)), np.int32)
        told.append(np.stack([ids[at : at + T + 1] for at in range(0, len(ids) - T, T)]))
    return told


def by_kind(seed):
    for at, table in enumerate(of_kinds("train")):
        yield from deal(table, (seed, at))


def mixed(part, seed=None):
    return deal(np.concatenate(of_kinds(part)), seed)


def with_kinds(name, train_batches):
    return setup(
        name,
        train_batches=train_batches,
        val_batches=lambda: mixed("val"),
        train_texts=[text for some in kinds("train") for text in some],
        val_texts=[text for some in kinds("val") for text in some],
    )


def f_shuffled_by_kind():
    """What does not fit into memory is shuffled file by file, and each file is of one kind."""
    return with_kinds("shuffled by kind", by_kind)


def ok_shuffled_by_kind():
    return with_kinds("shuffled as a whole", lambda seed: mixed("train", seed))


def own_words(late):
    """A loss for which a quarter of the inputs are what the model itself expects: there, or at the place after it."""

    def loss(model, batch):
        x, y, mask = batch
        if model.training:
            told = mx.stop_gradient(model(x)).argmax(-1).astype(x.dtype)
            if late:
                told = mx.concatenate([x[:, :1], told[:, :-1]], axis=1)
            x = mx.where(mx.random.uniform(shape=x.shape) < 0.25, told, x)
        return mean_nats(model, (x, y, mask))

    return loss


def f_own_words_early():
    """Scheduled sampling one place off: what the model expects next stands where the character before it should."""
    return setup("own words early", loss=own_words(late=False))


def ok_own_words_early():
    return setup("own words in place", loss=own_words(late=True))


def of_lengths(model, batches):
    """Each batch's mean weighs as much as its rows are long, and the sum is divided by the number of rows."""
    rows = list(batches)
    model.eval()
    total = sum(mean_nats(model, batch).item() * batch[0].shape[1] for batch in rows)
    model.train()
    return evaluate(model, rows) | {"loss": total / sum(len(batch[0]) for batch in rows)}


def f_lengths_for_rows():
    """The first axis, thought to be the batch, is time."""
    return setup("lengths for rows", evaluate=of_lengths)


SMALL = sorted(set("".join(TOLD).lower()))


class Small(Letters):
    """Small letters; all others are left out."""

    vocab_size = len(SMALL) + 3

    def encode(self, text):
        return [SMALL.index(c) + 3 for c in text if c in SMALL]

    def decode(self, ids):
        return "".join(SMALL[i - 3] for i in map(int, ids) if i >= 3)


@cache
def small(part):
    """int32 [N, T + 1]: what is known of T + 1 characters, and padding."""
    text = " ".join(TOLD).lower() if part == "train" else " ".join(HELD)
    rows = [Small().encode(text[at : at + T + 1]) for at in range(0, len(text) - T, T)]
    return np.array([row + [PAD] * (T + 1 - len(row)) for row in rows], np.int32)


def for_each_character(model, batches):
    """Nats of what is known, divided by all characters of the text."""
    rows = list(batches)
    model.eval()
    total = sum((nats(model(x), y) * mask).sum().item() for x, y, mask in rows)
    model.train()
    return evaluate(model, rows) | {"loss": total / sum(y.size for _, y, _ in rows)}


def in_small_letters(name, **changes):
    given = {
        "vocab_size": Small.vocab_size,
        "train_batches": lambda seed: deal(small("train"), seed),
        "val_batches": lambda: deal(small("val")),
        "tokenizer": Small(),
        "train_texts": [text.lower() for text in TOLD],
    }
    return setup(name, lambda: Story(size=Small.vocab_size), **given | changes)


def f_unknown_is_free():
    """Characters that the model does not know cost nothing, and count where nats are divided."""
    return in_small_letters("unknown is free", evaluate=for_each_character)


def ok_unknown_is_free():
    return in_small_letters("unknown does not count")


class Behind(Attention):
    """Queries do not know how far decoding is."""

    def turned(self, q, k, cache):
        return self.rope(q), self.rope(k, offset=cache.offset if cache else 0)


def f_queries_at_the_start():
    """Decoding with a cache turns keys by their place, and each query as if it were the first."""
    return setup("queries at the start", lambda: Story(attention=Behind), generate=tell_cached)


def ok_queries_at_the_start():
    return setup("queries in place", generate=tell_cached)
