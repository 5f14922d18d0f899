"""Rows that depart from their texts, and rows that break off."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from plain import given
from spelled import Digits, dealt
from tiny import V, judged

from mlxstories.ladder.bench.data.continuation import Departures, departures

END = V - 1
GO_ON, END_THERE = "rows go on as their texts do", "rows end where their texts end"
RNG = np.random.default_rng(3)
TEXTS = ["".join("0123456789ab"[i] for i in RNG.integers(0, END, size)) for size in RNG.integers(24, 40, 96)]
IDS = [Digits().encode(text) for text in TEXTS]
WINDOWS = np.array([ids[at : at + 17] for ids in IDS for at in (0, 7)])


def said(name, batches):
    return judged(name, train_batches=batches, tokenizer=Digits(), train_texts=TEXTS)


def ended(table, begun=False):
    """Each row gets the end token as its last target, and as its first input where it is ``begun``."""
    table = table.copy()
    table[:, -1] = END
    if begun:
        table[:, 0] = END
    return table


def given_the_next(table):
    """The last target of each row is that of another."""
    table = table.copy()
    table[:, -1] = np.roll(table[:, -1], 1)
    return table


@pytest.mark.parametrize(
    ("table", "wanted"),
    [
        (WINDOWS, []),
        (ended(WINDOWS), [("targets-mismatched", "error")]),
        (ended(WINDOWS, begun=True), [("targets-mismatched", "warning")]),
        (given_the_next(WINDOWS), [("targets-mismatched", "error")]),
        (ended(WINDOWS)[:60], []),  # too few to say
        (np.where(np.arange(17) % 4 == 3, 0, WINDOWS), []),  # departs everywhere
    ],
    ids=["goes-on", "ended", "a-text-of-its-own", "of-another", "few", "everywhere"],
)
def test_the_last_target_of_a_row(table, wanted):
    assert said(GO_ON, lambda seed: dealt(table)) == wanted


@pytest.mark.parametrize(("ending", "severity"), [(0.1, "error"), (0.7, "warning")])
def test_an_end_that_is_mostly_right_is_one_of_texts_that_are_cut_off(ending, severity):
    found = Departures(last=1.0, elsewhere=0.0, rows=100, token=END, alone=1.0, ending=ending, begun=0.0)
    assert [draft.severity for draft in given(GO_ON, {departures: found}).drafts] == [severity]


def padded(pieces, width=48):
    """Batches of these pieces, one a row."""
    table = np.full((len(pieces), width + 1), END)
    for row, piece in zip(table, pieces, strict=True):
        row[: len(piece)] = piece
    for at in range(0, len(table), 4):
        x, y = table[at : at + 4, :-1], table[at : at + 4, 1:]
        yield mx.array(x), mx.array(y), mx.array((y != END).astype(np.float32))


STREAM = np.concatenate([[*ids, END] for ids in IDS])
SIZES = np.array([len(ids) for ids in IDS])
STARTS = np.append(0, np.cumsum(SIZES)[:-1])


def drawn(seed):
    """Of each text a beginning of a length that is drawn anew."""
    rng = np.random.default_rng(seed)
    return [ids[: rng.integers(12, len(ids))] for ids in IDS]


@pytest.mark.parametrize(
    ("pieces", "wanted"),
    [
        (lambda seed: IDS, []),
        (lambda seed: [[*ids, END] for ids in IDS], []),
        (lambda seed: [STREAM[a : a + n] for a, n in zip(STARTS, SIZES, strict=True)], ["error"]),
        (lambda seed: [ids[:-1] for ids in IDS], ["warning"]),
        (lambda seed: [ids[:20] for ids in IDS], []),  # cut where a row is full
        (lambda seed: [half for ids in IDS for half in (ids[:14], ids[14:])], []),
        (drawn, []),
    ],
    ids=["whole", "ended", "drifting", "one-short", "cut-off", "halves", "drawn-anew"],
)
def test_rows_that_break_off(pieces, wanted):
    told = said(END_THERE, lambda seed: padded(pieces(seed)))
    assert told == [("targets-mismatched", severity) for severity in wanted]


def test_white_space_that_is_stripped_from_a_text_is_not_missed():
    class Spaced(Digits):
        def encode(self, text):
            return super().encode(text.replace("\n", "b"))

    texts = [text.replace("b", "a") + "\n" for text in TEXTS]
    rows = [Spaced().encode(text)[:-1] for text in texts]
    fields = {"train_batches": lambda seed: padded(rows), "tokenizer": Spaced()}
    assert judged(END_THERE, train_texts=texts, **fields) == []
    assert judged(END_THERE, train_texts=[text[:-1] + "b" for text in texts], **fields) != []
