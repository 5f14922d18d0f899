"""Epochs that read one kind of text after the other."""

from __future__ import annotations

import numpy as np
import pytest
from spelled import Digits, dealt
from tiny import judged, subject

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.data.kinds import kinds

NAME = "texts of all kinds are read throughout"
RNG = np.random.default_rng(5)


def drawn(digits, size, count=64):
    return ["".join(RNG.choice(list(digits), size)) for _ in range(count)]


LOW, HIGH, BOTH = drawn("01234567", 68), drawn("456789ab", 34), drawn("0123456789ab", 34)


def rows(texts):
    """int [N, 17]: windows of each text, 3 tokens apart; long texts have more."""
    ids = [Digits().encode(text) for text in texts]
    return np.array([told[at : at + 17] for told in ids for at in range(0, len(told) - 16, 3)])


def said(texts, order):
    table = rows(texts)
    return judged(
        NAME,
        train_batches=lambda seed: dealt(table[order(len(table))]),
        tokenizer=Digits(),
        train_texts=texts,
    )


def shuffled(count):
    return np.random.default_rng(0).permutation(count)


@pytest.mark.parametrize(
    ("texts", "order", "told"),
    [
        (LOW + HIGH, np.arange, True),
        (LOW + HIGH, lambda count: np.append(np.tile(np.arange(1152), 2), np.arange(count)), True),
        (LOW + HIGH, shuffled, False),
        (BOTH, np.arange, False),  # one kind, unshuffled
    ],
    ids=["in-turn", "second-not-reached", "mixed", "alike"],
)
def test_kinds_of_text_that_are_read_in_turn(texts, order, told):
    assert said(texts, order) == [("constant-batches", "warning")] * told


@pytest.mark.parametrize("texts", [LOW[:1], LOW[:1] * 3], ids=["one", "alike"])
def test_one_text_has_no_halves(texts):
    table = rows(texts)
    given = {"tokenizer": Digits(), "train_texts": texts}
    assert kinds(Bench(subject(train_batches=lambda seed: dealt(table), **given))) is None
