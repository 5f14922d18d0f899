"""Packing: every target once, true next-token pairs, stories kept apart."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxstories.data.packing import LAYOUTS, Documents, pack
from mlxstories.data.tokenizer import END
from mlxstories.errors import StoriesError


def corpus(lengths):
    """Stories whose tokens are all different, so that every cell can be traced."""
    tokens = iter(range(3, 10**6))
    return Documents.of([np.array([next(tokens) for _ in range(n)], dtype=np.uint32) for n in lengths])


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=60),
    st.integers(1, 32),
    st.sampled_from(LAYOUTS),
    st.none() | st.integers(0, 5),
)
def test_every_target_once_and_stories_apart(lengths, context, layout, seed):
    documents = corpus(lengths)
    rng = None if seed is None else np.random.default_rng(seed)
    rows = pack(documents, context, layout=layout, rng=rng)
    assert all(field.shape == (len(rows.inputs), context) for field in rows)
    assert {field.dtype for field in rows} == {np.dtype(np.int32), np.dtype(np.float32)}

    real = rows.mask == 1
    assert ((rows.mask == 0) | real).all()
    cells = sorted(zip(rows.story[real].tolist(), rows.position[real].tolist(), strict=True))
    assert cells == [(i, p) for i, n in enumerate(lengths) for p in range(n + 1)]
    assert real.sum() == documents.targets
    assert (rows.story[~real] == -1).all() and (rows.position[~real] == -1).all()
    assert real.any(axis=1).all()

    for row in range(len(rows.inputs)):
        n = int(real[row].sum())
        assert real[row, :n].all()  # padding at the end only
        for t in range(n):
            story = [END, *documents[rows.story[row, t]].tolist(), END]
            p = rows.position[row, t]
            assert (rows.inputs[row, t], rows.targets[row, t]) == (story[p], story[p + 1])
        # Segments derived from END are runs of one story; padding is in none of them.
        segment = np.cumsum(rows.inputs[row] == END)
        stories = rows.story[row, :n]
        assert ((np.diff(segment[:n]) > 0) == (np.diff(rows.position[row, :n]) != 1)).all()
        assert ((np.diff(segment[:n]) == 0) <= (np.diff(stories) == 0)).all()
        assert n == context or segment[n] > segment[n - 1]
        if layout == "padded":
            assert len(set(stories.tolist())) == 1


@given(st.lists(st.integers(1, 60), min_size=1, max_size=80), st.integers(8, 64))
def test_rows_are_those_of_best_fit_decreasing(lengths, context):
    """As many rows as the plain algorithm over single stories."""
    whole = sorted((n + 1 for n in lengths if n + 1 <= context), reverse=True)
    rooms = []
    for n in lengths:
        cells = n + 1
        if cells > context:
            rooms += [0] * (cells // context)
            if cells % context:
                rooms.append(context - cells % context)
            # the first piece begins with END and fills its row
    for cells in whole:
        fitting = [i for i, room in enumerate(rooms) if room >= cells]
        if fitting:
            i = min(fitting, key=lambda i: rooms[i])
            rooms[i] -= cells
        else:
            rooms.append(context - cells)
    assert len(pack(corpus(lengths), context).inputs) == len(rooms)


def test_a_packed_row_by_hand():
    rows = pack(Documents.of([np.array([3, 4]), np.array([5]), np.array([6, 7, 8, 9])]), 5)
    assert rows.inputs.tolist() == [[0, 6, 7, 8, 9], [0, 3, 4, 0, 5]]
    assert rows.targets.tolist() == [[6, 7, 8, 9, 0], [3, 4, 0, 5, 0]]
    assert rows.story.tolist() == [[2] * 5, [0, 0, 0, 1, 1]]
    assert rows.mask.mean() == 1.0


def test_a_long_story_continues_with_its_last_token():
    rows = pack(Documents.of([np.arange(3, 10), np.array([20])]), 5)
    assert rows.inputs.tolist() == [[7, 8, 9, 0, 20], [0, 3, 4, 5, 6]]
    assert rows.targets.tolist() == [[8, 9, 0, 20, 0], [3, 4, 5, 6, 7]]


def test_cuts_and_rows_differ_by_epoch_and_agree_by_seed():
    documents = corpus([100, 7, 7, 7, 30])
    packed = [pack(documents, 16, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert all((a == b).all() for a, b in zip(packed[0], packed[1], strict=True))
    cuts = [set(rows.position[:, 0][rows.story[:, 0] == 0].tolist()) for rows in packed]
    assert cuts[0] != cuts[2]


def test_rows_are_what_they_have_always_been():
    """The packing of a seed is part of every result: its bytes, from the first version on."""
    rng = np.random.default_rng(5)
    documents = Documents.of([rng.integers(3, 999, n).astype(np.uint16) for n in rng.integers(1, 90, 300)])
    digest = hashlib.sha256()
    for layout in LAYOUTS:
        for seed in (None, (7, 0), (7, 1)):
            drawn = None if seed is None else np.random.default_rng(seed)
            for field in pack(documents, 48, layout=layout, rng=drawn):
                digest.update(field.tobytes())
    assert digest.hexdigest() == "b3a1eb3847afb0811d1f22589558d33974fd83d8a175f86a6e08a9f63b1ac6ae"


def test_packing_wastes_little():
    lengths = np.random.default_rng(0).normal(120, 25, 3000).clip(20, 250).astype(int)
    documents = Documents.of([np.full(n, 7) for n in lengths])
    assert pack(documents, 512).mask.mean() > 0.96
    assert pack(documents, 256, layout="padded").mask.mean() == pytest.approx((lengths + 1).mean() / 256)


def test_documents_read_like_a_list_of_stories():
    documents = Documents.of([np.array([3, 4]), np.array([70_000])])
    assert len(documents) == 2 and documents.tokens.dtype == np.uint32
    assert documents[-1].tolist() == [70_000] and documents.lengths.tolist() == [2, 1]
    assert [story.tolist() for story in documents] == [[3, 4], [70_000]]
    with pytest.raises(IndexError):
        documents[2]
    assert Documents.of([np.array([3])]).tokens.dtype == np.uint16
    assert len(pack(Documents.of([]), 8).inputs) == 0


@pytest.mark.parametrize(("context", "layout", "message"), [(0, "packed", "got 0"), (8, "tight", "'tight'")])
def test_bad_arguments_are_refused(context, layout, message):
    with pytest.raises(StoriesError, match=message):
        pack(corpus([3]), context, layout=layout)
