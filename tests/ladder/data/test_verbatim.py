"""Whether validation's texts reach its rows as training's do."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlxstories.faults.recipe import healthy
from mlxstories.ladder import Subject
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.data.verbatim import verbatim
from mlxstories.ladder.registry import CHECKS

T = 96


SIGNS = sorted(set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz .,:!"))


TEXTS = [
    f"Tom met {name}. He said: Hello, {name}! Then {name} ran Home." for name in ("Ann", "Bob", "Cleo", "Dan")
]


class Letters:
    def encode(self, text):
        return [SIGNS.index(c) for c in text if c in SIGNS]

    def decode(self, ids):
        return "".join(SIGNS[i] for i in ids)


def rows(prepare, between=" "):
    ids = np.array(Letters().encode(between.join(prepare(text) for text in TEXTS * 20)), np.int32)
    table = np.stack([ids[at : at + T + 1] for at in range(0, len(ids) - T, T)])
    return [
        (mx.array(part[:, :-1]), mx.array(part[:, 1:])) for part in np.split(table[: len(table) // 4 * 4], 4)
    ]


def told(train, val, between=" "):
    bench = Bench(
        Subject(
            model=lambda: None,
            vocab_size=len(SIGNS),
            tokenizer=Letters(),
            train_texts=[" ".join(TEXTS * 20)],
            val_texts=[" ".join(TEXTS * 20)],
            train_batches=lambda seed: rows(train),
            val_batches=lambda: rows(val, between),
        )
    )
    checked = CHECKS["validation is prepared like training"]
    return verbatim(bench), [draft.code for draft in checked.ask(bench, checked.gauges()).drafts]


def as_it_is(text):
    return text


@pytest.mark.parametrize("change", [str.lower, lambda text: text.replace(".", ""), str.swapcase])
def test_validation_that_alone_is_changed_is_told(change):
    (train, val), codes = told(as_it_is, change)
    assert train.kept == 1 and val.kept < 0.6
    assert codes == ["tokenizer-mismatch"]


@pytest.mark.parametrize(
    ("train", "val", "between"),
    [
        (as_it_is, as_it_is, " "),
        (str.lower, str.lower, " "),
        (str.lower, as_it_is, " "),
        (as_it_is, as_it_is, " and on we go "),
    ],
)
def test_what_is_changed_in_both_or_arranged_otherwise_is_not(train, val, between):
    assert told(train, val, between)[1] == []


def test_the_words_of_the_built_in_stories_are_told_as_they_are():
    train, val = verbatim(Bench(healthy().subject()))
    assert train.kept == pytest.approx(1, abs=0.05)
    assert val.kept == pytest.approx(1, abs=0.05)


def test_texts_of_many_millions_of_characters_are_not_looked_through(monkeypatch):
    monkeypatch.setattr("mlxstories.ladder.bench.data.verbatim.LARGEST", 1000)
    assert told(as_it_is, str.lower) == (None, [])
