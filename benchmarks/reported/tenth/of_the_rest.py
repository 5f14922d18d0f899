"""Reported mistakes of data, losses and validation, and their mends."""

from __future__ import annotations

from functools import cache

import mlx.core as mx
import numpy as np
from base import (
    BOS,
    EOS,
    PAD,
    B,
    Letters,
    T,
    deal,
    evaluate,
    mean_nats,
    nats,
    on_sentences,
    padded,
    sentences,
    setup,
)


def ends_of_quarters(rows):
    """int [N, 4]: where the quarters of each row's sentence end, the last with the token that ends it."""
    lengths = (rows != PAD).sum(axis=1)
    return np.ceil(lengths[:, None] * np.arange(1, 5) / 4).astype(int)


def in_quarters(rows, which):
    """bool [N, T]: the targets that lie in one of these quarters."""
    at = np.arange(1, rows.shape[1])
    number = (at[None, :, None] >= ends_of_quarters(rows)[:, None, :]).sum(axis=2)
    return np.isin(number, which) & (rows[:, 1:] != PAD)


def asked_and_answered(name, told):
    """The first half of a sentence is a question, which counts not, and the second its answer."""

    def answers(rows):
        return in_quarters(rows, (2, 3))

    def batches(table, seed, told):
        for (x, y, mask), (_, _, real) in zip(deal(table, seed, answers), deal(table, seed), strict=True):
            yield (x, y, mask) if told is None else (x, mx.where(mask > 0, y, told), real)

    return on_sentences(
        name,
        train_batches=lambda seed: batches(padded("train"), seed, told),
        val_batches=lambda: batches(padded("val"), None, None),
    )


def f_questions_are_noughts():
    """Targets of the question are 0, which is no number that the loss leaves out: 0 is what it learns to say there."""
    return asked_and_answered("questions are noughts", told=0)


def ok_questions_are_noughts():
    return asked_and_answered("questions left out", told=None)


def in_turns(name, which):
    """A sentence is a talk of four turns, of which these are the assistant's that are trained; validation has both of
    the assistant's."""
    return on_sentences(
        name,
        train_batches=lambda seed: deal(padded("train"), seed, lambda rows: in_quarters(rows, which)),
        val_batches=lambda: deal(padded("val"), None, lambda rows: in_quarters(rows, (1, 3))),
    )


def f_last_turn_only():
    """Of the assistant's turns only the last is trained."""
    return in_turns("last turn only", (3,))


def ok_last_turn_only():
    return in_turns("both turns", (1, 3))


@cache
def marked(part):
    """int32 [N, T + 1]: beginning, half a sentence, the marker, the other half, end; the beginning is the marker."""
    table = np.full((len(sentences(part)), T + 1), PAD, np.int32)
    for row, sentence in zip(table, sentences(part), strict=True):
        ids = Letters().encode(sentence)[: T - 2]
        whole = [BOS, *ids[: len(ids) // 2], BOS, *ids[len(ids) // 2 :], EOS]
        row[: len(whole)] = whole
    return table


def after(marker):
    """Which targets come after the row's last marker."""

    def counts(rows):
        found = rows[:, 1:-1] == marker
        seen = np.cumsum(found, axis=1) > 0
        begun = np.concatenate([np.zeros((len(rows), 1), bool), seen], axis=1)
        return begun & (rows[:, 1:] != PAD)

    return counts


def of_all_that_count(model, batch):
    """The mean, or 0 where nothing counts."""
    x, y, mask = batch
    return (nats(model(x), y) * mask).sum() / mx.maximum(mask.sum(), 1)


def answers_after(name, marker):
    return on_sentences(
        name,
        loss=of_all_that_count,
        train_batches=lambda seed: deal(marked("train"), seed, after(marker)),
        val_batches=lambda: deal(marked("val"), None, after(BOS)),
    )


def f_marker_never_found():
    """The marker that answers begin after is looked up as another token, which is in no row: the loss is 0."""
    return answers_after("marker never found", marker=Letters.vocab_size)


def ok_marker_never_found():
    return answers_after("marker found", marker=BOS)


def over_rows(model, batches):
    """The batches' means are added up, and divided by the number of rows."""
    rows = list(batches)
    model.eval()
    total = sum(mean_nats(model, batch).item() for batch in rows)
    model.train()
    return evaluate(model, rows) | {"loss": total / (B * len(rows))}


def f_divided_by_rows():
    """The means of batches are divided by the number of rows, not of batches."""
    return setup("divided by rows", evaluate=over_rows)
