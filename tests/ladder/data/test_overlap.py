"""What validation shares with training, by texts, rows and windows."""

from __future__ import annotations

import numpy as np
import pytest

from mlxstories.ladder.bench.batches import read_batch
from mlxstories.ladder.bench.data.overlap import row_overlap, text_overlap
from mlxstories.ladder.bench.data.windows import window_overlap


def test_overlap_counts_what_validation_shares():
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(300)]
    stories = [" ".join(rng.choice(words, 60)) for _ in range(60)]
    assert text_overlap(stories[:40], stories[40:]) == (0.0, 0.0)
    renamed = [story.replace("w1 ", "w2 ").upper() for story in stories[:10]]
    assert text_overlap(stories[:40], renamed + stories[40:50])[0] == 0.5
    rows = rng.integers(0, 500, (20, 64))
    train, val = read_batch((rows, rows)), read_batch((rows[:10, 8:56], rows[:10, 8:56]))
    assert window_overlap([train], [val])[0] == 1.0
    assert window_overlap([train.rows(slice(10, 20))], [val])[0] == 0.0


def test_rows_of_padding_alone_are_no_overlap():
    """They fill up the last batch of both sides."""
    rng = np.random.default_rng(0)

    def side():
        ids = rng.integers(3, 99, (4, 16))
        mask = np.array([1.0, 1.0, 1.0, 0.0])[:, None] * np.ones((4, 16))
        ids[3] = 0
        return [read_batch((ids, ids, mask.astype(np.float32)))]

    assert row_overlap(side(), side()) == (0.0, 0.0)


def as_rows(table: np.ndarray) -> list:
    return [read_batch((table[:, :-1], table[:, 1:]))]


def sliding(stream: np.ndarray, stride: int) -> np.ndarray:
    starts = np.arange(0, len(stream) - 49, stride)[:, None]
    return stream[starts + np.arange(49)]


def test_windows_that_slide_over_one_text_repeat_nothing():
    stream = np.random.default_rng(3).integers(0, 50, 1200)
    table = sliding(stream, 4)
    order = np.random.default_rng(4).permutation(len(table))
    shared, natural = window_overlap(as_rows(table[order[40:]]), as_rows(table[order[:40]]))
    assert shared > 0.9
    assert natural == 0
    apart, _ = window_overlap(as_rows(table[:150]), as_rows(table[-20:]))
    assert apart == 0


def test_a_text_told_twice_repeats():
    stream = np.random.default_rng(5).integers(0, 50, 586)  # the second time 10 places on in its row
    _, natural = window_overlap(
        as_rows(sliding(np.concatenate([stream, stream]), 48)), as_rows(sliding(stream, 48))
    )
    assert 0.2 < natural < 0.6


def drawn(text: np.ndarray, rows: int, seed: int, length: int = 48) -> np.ndarray:
    starts = np.random.default_rng(seed).integers(0, len(text) - length, (rows, 1))
    return text[starts + np.arange(length + 1)]


@pytest.mark.parametrize("length", [32, 48])
def test_windows_drawn_from_one_text_repeat_nothing(length):
    """They cover half of it, so that few of them overlap by much."""
    text, other = np.random.default_rng(6).integers(0, 50, (2, 20_000))
    train = as_rows(drawn(text, 10_000 // length, 0, length))
    shared, natural = window_overlap(train, as_rows(drawn(text, 50, 1, length)))
    assert shared > 0.1 and natural < 0.05  # a place may be drawn twice
    assert window_overlap(train, as_rows(drawn(other, 50, 1, length)))[0] == 0


def test_what_is_told_twice_in_a_text_that_is_drawn_from_repeats():
    rng = np.random.default_rng(7)
    phrases = rng.integers(0, 50, (20, 40))
    text = np.concatenate([np.r_[phrases[i % 20], rng.integers(0, 50, 10)] for i in range(200)])
    assert window_overlap(as_rows(drawn(text, 200, 0)), as_rows(drawn(text, 50, 1)))[1] > 0.08


def test_phrases_that_short_rows_share_repeat_within_training_too():
    """They begin and end at any place of a row, as drawn rows do, and part sooner."""
    rng = np.random.default_rng(8)
    phrases = rng.integers(0, 50, (600, 30))
    text = np.concatenate(
        [np.r_[rng.choice(phrases)[: rng.integers(18, 31)], rng.integers(0, 50, 6)] for _ in range(4000)]
    )
    rows = text[: len(text) // 25 * 25].reshape(-1, 25)
    shared, natural = window_overlap(as_rows(rows[400:]), as_rows(rows[:400]))
    assert shared > 0.1 and shared < 1.3 * natural
