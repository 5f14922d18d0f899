"""Texts of one character a token, their tokenizers, and rows of them: digits for the tiny model, and letters."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
from tiny import B, T, V, subject

from mlxstories.ladder.bench import Bench


class Digits:
    eos_id = V - 1  # no text holds it

    def encode(self, text):
        return [int(c, V) for c in text]

    def decode(self, ids):
        return "".join("0123456789abc"[i] for i in ids)


TEXTS = [
    "".join("0123456789ab"[i] for i in np.random.default_rng(n).integers(0, V - 1, 60)) for n in range(40)
]


def rows_of(texts, length=T):
    """Windows of each text, one after the other."""
    ids = [Digits().encode(text) for text in texts]
    return np.array([row[at : at + length + 1] for row in ids for at in range(0, len(row) - length, length)])


def dealt(table):
    for at in range(0, len(table) - B + 1, B):
        rows = table[at : at + B]
        yield mx.array(rows[:, :-1]), mx.array(rows[:, 1:])


SIGNS = sorted(set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz .,:!\n"))
STORY = " ".join(
    f"Tom met {n}. He said: Hello, {n}! Then {n} ran Home." for n in ("Ann", "Bob", "Cleo", "Dan")
)


class Letters:
    def encode(self, text):
        return [SIGNS.index(c) + 1 for c in text]

    def decode(self, ids):
        return "".join(SIGNS[i - 1] for i in ids if i)


def of_letters(ids, texts, width=96):
    table = np.resize(np.array(ids, np.int32), (16, width + 1))
    rows = [(mx.array(part[:, :-1]), mx.array(part[:, 1:])) for part in np.split(table, 4)]
    return Bench(
        subject(
            model=lambda: None,
            vocab_size=len(SIGNS) + 4,
            tokenizer=Letters(),
            train_texts=texts,
            train_batches=lambda seed: rows,
        )
    )
