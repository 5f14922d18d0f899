"""Reported mistakes of data, validation and decoding, and their mends."""

from __future__ import annotations

from functools import cache

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from base import HELD, TOLD, D, Letters, T, V, deal, evaluate, mean_nats, setup, windows


def copied(table, seed=None):
    for x, _, mask in deal(table, seed):
        yield x, x, mask


def f_labels_are_inputs():
    """What the decoder reads and what it is asked for are aligned: it copies, and the loss is nearly nothing."""
    return setup(
        "labels are inputs",
        train_batches=lambda seed: copied(windows("train"), seed),
        val_batches=lambda: copied(windows("val")),
    )


@cache
def stripped(part):
    """int32 [N, T + 1]: words without the letters of the tags."""
    words = " ".join(TOLD if part == "train" else HELD).split(" ")
    ids = np.array(Letters().encode(" ".join(word.strip("/np0") for word in words)), np.int32)
    return np.stack([ids[at : at + T + 1] for at in range(0, len(ids) - T, T)])


def f_letters_stripped():
    """Words are to be freed of a tag such as "/n" at their end, and lose each n and p that they begin or end with."""
    return setup(
        "letters stripped",
        train_batches=lambda seed: deal(stripped("train"), seed),
        val_batches=lambda: deal(stripped("val")),
    )


def divided_each_time(model, batches):
    rows = list(batches)
    told = evaluate(model, rows)
    model.eval()
    total = 0.0
    for done, batch in enumerate(rows, start=1):
        total += mean_nats(model, batch).item()
        total /= done
    model.train()
    return told | {"loss": total}


def f_divided_each_time():
    """The sum of the validation losses is divided by their number inside of the loop, each time anew."""
    return setup("divided each time", evaluate=divided_each_time)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.read, self.head = nn.Embedding(V, D), nn.GRU(D, D), nn.Linear(D, V)

    def __call__(self, x):
        return self.head(self.read(self.embedding(x)))


def told_by(fed):
    """Greedy, with the state carried on; ``fed`` says what is read after the logits of a token."""

    def generate(model, prompt, n):
        model.eval()
        read, state, told = model.embedding(mx.array([prompt])), None, []
        for _ in range(n):
            state = model.read(read, state)[:, -1]
            logits = model.head(state)
            told.append(int(logits.argmax(-1).item()))
            read = fed(model, logits)[:, None]
        model.train()
        return told

    return generate


def f_probabilities_fed_back():
    """The network reads its own probabilities after each character, not the character that was chosen."""
    return setup(
        "probabilities fed back",
        Recurrent,
        generate=told_by(lambda model, logits: mx.softmax(logits, axis=-1) @ model.embedding.weight),
    )


def ok_probabilities_fed_back():
    return setup(
        "choice fed back",
        Recurrent,
        generate=told_by(lambda model, logits: model.embedding(logits.argmax(-1))),
    )
