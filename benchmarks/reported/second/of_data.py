"""Reported mistakes of what is read, and their mends."""

from __future__ import annotations

from functools import cache

import numpy as np
from base import (
    BOS,
    EOS,
    HELD,
    PAD,
    TOLD,
    Letters,
    T,
    deal,
    on_sentences,
    padded,
    sentences,
    setup,
    windows,
)


@cache
def asked(part, erased):
    """Sentences of which the last two thirds are asked for; ``erased`` writes the padding that marks a target as
    left out into the one array that the inputs are read from, too. (rows [N, T + 1], counts bool [N, T])"""
    rows = padded(part)
    lengths = (rows != PAD).sum(1, keepdims=True)
    places = np.arange(1, T + 1)
    counts = (places >= lengths // 3) & (places < lengths)
    if erased:
        rows = np.concatenate([rows[:, :1], np.where(counts, rows[:, 1:], PAD)], axis=1)
    return rows, counts


def answering(erased):
    def batches(part, seed=None):
        rows, counts = asked(part, erased)
        both = np.concatenate([rows, counts], axis=1)  # shuffled together
        for x, y, mask in deal(both, seed, counts=lambda dealt: dealt[:, T + 1 :]):
            yield x[:, :T], y[:, :T], mask

    return {
        "train_batches": lambda seed: batches("train", seed),
        "val_batches": lambda: batches("val"),
    }


def f_prompt_erased():
    """Targets that are left out are overwritten in place, and inputs are a view of the same array: the prompt is
    gone."""
    return on_sentences("prompt erased", **answering(True))


def ok_prompt_erased():
    return on_sentences("prompt kept", **answering(False))


@cache
def joined(part, ended):
    """int32 [N, T + 1]: sentences one behind the other, with an end after each or with nothing."""
    pieces = [Letters().encode(sentence) + [EOS] * ended for sentence in sentences(part)]
    ids = np.array([i for piece in pieces for i in piece], np.int32)
    return np.stack([ids[at : at + T + 1] for at in range(0, len(ids) - T, T)])


def running(ended):
    return {
        "train_batches": lambda seed: deal(joined("train", ended), seed),
        "val_batches": lambda: deal(joined("val", ended)),
    }


def f_joined_without_end():
    """Texts are joined without the token that ends one: nothing that is generated ever stops."""
    return on_sentences("joined without an end", **running(False))


def ok_joined_without_end():
    return on_sentences("joined by an end", **running(True))


@cache
def heads():
    """int32 [N, T + 1]: of each story what fits into one row."""
    return np.array([Letters().encode(story)[: T + 1] for story in TOLD if len(story) > T], np.int32)


def f_heads_only():
    """A text is cut to the length of a row, and the rest of it is thrown away."""
    return setup("heads of stories", train_batches=lambda seed: deal(heads(), seed))


NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


@cache
def sums(part):
    """Texts of four sums in words: another source than the stories."""
    rng = np.random.default_rng([3, part == "val"])
    draws = rng.integers(0, 6, (120 if part == "train" else 20, 4, 2))
    lines = [[f"{NUMBERS[a]} and {NUMBERS[b]} make {NUMBERS[a + b + 1]}." for a, b in text] for text in draws]
    return [" ".join(text) for text in lines]


@cache
def both_sources(part):
    """int32 [N, T + 1]"""
    ids = np.array(Letters().encode(" ".join(sums(part))), np.int32)
    rows = np.stack([ids[at : at + T + 1] for at in range(0, len(ids) - T, T)])
    return np.concatenate([windows(part), rows])


def mixture(read):
    return {
        "train_batches": lambda seed: deal(both_sources("train") if read else windows("train"), seed),
        "val_batches": lambda: deal(both_sources("val")),
        "train_texts": TOLD + sums("train"),
        "val_texts": HELD + sums("val"),
    }


def f_mixture_unread():
    """Two sources are listed, and the loader reads the first: stories, and never a sum."""
    return setup("one source of two", **mixture(read=False))


def ok_mixture_unread():
    return setup("two sources", **mixture(read=True))


@cache
def indexed(part):
    """Rows cut from one array of all texts by an index of lengths that were taken before the ends were added: each
    row begins one token earlier in its text than the row before it."""
    pieces = [[BOS, *Letters().encode(sentence)] for sentence in sentences(part)]
    ids = np.array([i for piece in pieces for i in [*piece, EOS]], np.int32)
    lengths = [len(piece) for piece in pieces]
    starts = np.cumsum([0, *lengths[:-1]])
    table = np.full((len(pieces), T + 1), PAD, np.int32)
    for row, start, length in zip(table, starts, lengths, strict=True):
        row[:length] = ids[start : start + length]
    return table


def f_index_without_ends():
    """The index of texts is made of their lengths without the end that stands behind each: rows drift away from the
    texts."""
    return on_sentences(
        "index without ends",
        train_batches=lambda seed: deal(indexed("train"), seed),
        val_batches=lambda: deal(indexed("val")),
    )
