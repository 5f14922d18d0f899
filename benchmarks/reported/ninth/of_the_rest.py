"""Reported mistakes of data, losses, validation and decoding, and their mends."""

from __future__ import annotations

from functools import cache

import mlx.core as mx
import numpy as np
from base import (
    EOS,
    HELD,
    TOLD,
    B,
    Letters,
    T,
    deal,
    evaluate,
    nats,
    on_sentences,
    setup,
    tell_cached,
    windows,
)

LENGTH, OVERLAP = 24, 4


@cache
def pieces(part, ended):
    """int32 [N, LENGTH + 1]: the stories in a row, in pieces that overlap; at the end of each the token that ends a
    text, or the character after it."""
    ids = np.array(Letters().encode(" ".join(TOLD if part == "train" else HELD)), np.int32)
    rows = np.stack([ids[at : at + LENGTH + 1] for at in range(0, len(ids) - LENGTH, LENGTH - OVERLAP)])
    if ended:
        rows[:-1, -1] = EOS
    return rows


def in_pieces(name, ended):
    return setup(
        name,
        train_batches=lambda seed: deal(pieces("train", ended), seed),
        val_batches=lambda: deal(pieces("val", ended)),
    )


def f_end_of_each_piece():
    """Each piece of a text that is as long as pieces may be gets the token that ends a text, in the middle of it."""
    return in_pieces("end of each piece", ended=True)


def ok_end_of_each_piece():
    return in_pieces("pieces go on", ended=False)


def rows_of_means(model, batch):
    """The sum of rows' means, padding among what they are divided by."""
    x, y, mask = batch
    return (nats(model(x), y) * mask).mean(axis=1).sum()


def divided_twice(model, batches):
    """The sum of rows' means, divided by the number of characters that count."""
    rows = list(batches)
    model.eval()
    total = sum(rows_of_means(model, batch).item() for batch in rows)
    model.train()
    return evaluate(model, rows) | {"loss": total / sum(mask.sum().item() for _, _, mask in rows)}


def f_divided_twice():
    """A row's loss is a mean over all its places where a sum is meant, and the characters divide it once more."""
    return on_sentences("divided twice", loss=rows_of_means, evaluate=divided_twice)


def summed_rows(model, batch):
    x, y, mask = batch
    return (nats(model(x), y) * mask).sum()


def ok_divided_twice():
    return on_sentences("divided once", loss=summed_rows)


def all_of(table):
    """Rows in their order; the last batch holds what is left."""
    for at in range(0, len(table), B):
        rows = table[at : at + B]
        yield mx.array(rows[:, :-1]), mx.array(rows[:, 1:]), mx.ones((len(rows), T))


def filled_up(model, batches):
    """Every batch takes as many rows as the first has; those that the last lacks are noughts, and count."""
    size, full = None, []
    for x, y, mask in batches:
        size = size or len(x)
        lacks = [(0, size - len(x)), (0, 0)]
        full.append((mx.pad(x, lacks), mx.pad(y, lacks), mx.pad(mask, lacks, constant_values=1)))
    return evaluate(model, full)


def f_filled_up():
    """The last batch of validation is filled up with rows that are not there, whose targets are noughts."""
    return setup("filled up", val_batches=lambda: all_of(windows("val")[:-1]), evaluate=filled_up)


def ok_filled_up():
    return setup("what is left", val_batches=lambda: all_of(windows("val")[:-1]))


def one_behind(model, prompt, n):
    """The first character of the prompt is read twice, and the last never."""
    return tell_cached(model, [prompt[0], *prompt[:-1]], n)


def f_one_behind():
    return setup("one behind", generate=one_behind)


def ok_one_behind():
    return setup("the whole prompt", generate=tell_cached)
