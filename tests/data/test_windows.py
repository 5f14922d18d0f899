"""Windows: every story in exactly one of them, drawn anew each epoch, and read in long runs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxstories.data import windows
from mlxstories.data.packing import Documents, pack
from mlxstories.data.windows import Windows


def corpus(lengths):
    rng = np.random.default_rng(len(lengths))
    return Documents.of([rng.integers(3, 999, n).astype(np.uint16) for n in lengths])


def cells(rows):
    real = rows.mask == 1
    return sorted(zip(rows.story[real].tolist(), rows.position[real].tolist(), strict=True))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(windows, "MOST_STORIES", 20)
    monkeypatch.setattr(windows, "MOST_TARGETS", 600)
    monkeypatch.setattr(windows, "BLOCK", 64)


@given(
    st.lists(st.integers(1, 90), min_size=1, max_size=120),
    st.integers(1, 40),
    st.sampled_from(["packed", "padded"]),
    st.integers(0, 3),
)
@settings(max_examples=60)
def test_every_target_is_in_exactly_one_window(lengths, context, layout, epoch):
    documents = corpus(lengths)
    epochs = Windows(documents, context, layout=layout, seed=3, epoch=epoch)
    found = [cells(epochs[index].fill()) for index in range(len(epochs))]
    assert all(found)
    expected = [(i, p) for i, n in enumerate(lengths) for p in range(n + 1)]
    assert sorted(cell for window in found for cell in window) == expected


def test_few_stories_are_one_window_packed_as_ever():
    documents = corpus([7, 30, 2, 90])
    epochs = Windows(documents, 16, layout="packed", seed=5, epoch=2)
    rows = pack(documents, 16, rng=np.random.default_rng((5, 2)))
    assert len(epochs) == 1
    for got, expected in zip(epochs[0].fill(), rows, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_windows_are_bounded_mixed_and_drawn_anew():
    documents = corpus([25] * 300)
    epochs = [Windows(documents, 30, layout="packed", seed=s, epoch=e) for s, e in ((0, 0), (0, 1), (1, 0))]
    assert len(epochs[0]) == 15
    first = []
    for drawn in epochs:
        stories = [{story for story, _ in cells(drawn[index].fill())} for index in range(len(drawn))]
        assert max(map(len, stories)) <= 20 + 3  # a block holds at most three of these stories
        assert np.mean([max(found) - min(found) for found in stories]) > 150
        first.append(stories[0])
    assert first[0] != first[1] != first[2] != first[0]


def test_a_part_of_the_rows_is_that_part_of_all_rows():
    documents = corpus([40, 3, 3, 77, 12, 12, 12])
    arranged = Windows(documents, 16, layout="packed", seed=0, epoch=0)[0]
    whole = arranged.fill()
    for start, stop in ((0, 3), (2, 9), (5, 5), (arranged.rows - 1, arranged.rows + 4), (99, 103)):
        for got, expected in zip(arranged.fill(start, stop), whole, strict=True):
            np.testing.assert_array_equal(got, expected[start:stop])
