"""The stream: every token once an epoch, the same from any position, shared among processes row by row."""

from __future__ import annotations

import numpy as np
import pytest

from mlxstories.batch import batch_of
from mlxstories.data import windows
from mlxstories.data.packing import Documents, pack
from mlxstories.errors import StoriesError
from mlxstories.training.config import TrainingConfig
from mlxstories.training.stream import Stream


@pytest.fixture(scope="module")
def documents():
    rng = np.random.default_rng(0)
    return Documents.of([rng.integers(3, 99, rng.integers(1, 90)).astype(np.uint16) for _ in range(70)])


@pytest.fixture(params=[2**20, 20], ids=["one window", "windows"])
def stories_of_a_window(request, monkeypatch):
    monkeypatch.setattr(windows, "MOST_STORIES", request.param)
    monkeypatch.setattr(windows, "BLOCK", 64)


def same(a, b):
    return all((np.array(x) == np.array(y)).all() for x, y in zip(a, b, strict=True))


@pytest.mark.usefixtures("stories_of_a_window")
def test_every_token_once_an_epoch_in_static_shapes(documents):
    stream = Stream(documents, 32, TrainingConfig(batch_size=8))
    for epoch in range(3):
        seen = 0
        while stream.epoch == epoch:
            batch = next(stream)
            assert batch.inputs.shape == batch.targets.shape == batch.mask.shape == (8, 32)
            seen += int(batch.mask.sum())
        assert seen == documents.targets


@pytest.mark.usefixtures("stories_of_a_window")
def test_from_any_position_the_batches_are_those_of_the_uninterrupted_stream(documents):
    config = TrainingConfig(batch_size=8, seed=4)
    stream, positions, batches = Stream(documents, 32, config), [], []
    assert stream.length > 5
    while stream.epoch < 2:
        positions.append((stream.epoch, stream.batch))
        batches.append(next(stream))
    assert positions[: stream.length] == [(0, batch) for batch in range(stream.length)]
    for position, batch in zip(positions, batches, strict=True):
        again = Stream(documents, 32, config)
        again.seek(*position)
        assert same(next(again), batch)
    with pytest.raises(StoriesError, match=r"epoch 0 has \d+ batches"):
        stream.seek(0, stream.length)
        next(stream)


def test_a_corpus_of_one_window_gives_the_batches_of_its_packed_rows(documents):
    config = TrainingConfig(batch_size=8, seed=4)
    stream = Stream(documents, 32, config)
    for epoch in (0, 1):
        rows = pack(documents, 32, rng=np.random.default_rng((4, epoch)))
        for index in range(-(-len(rows.inputs) // 8)):
            assert same(next(stream), batch_of(rows, index, 8))


@pytest.mark.usefixtures("stories_of_a_window")
def test_positions_are_left_out_however_many(documents):
    """All of the first 200 epochs, and every third after them: more in a row than a stack of calls is deep."""
    config = TrainingConfig(batch_size=8, seed=4)
    whole = Stream(documents, 32, config)
    whole.seek(200, 0)
    left = Stream(documents, 32, config)
    length = left.length
    left.skipped = {(epoch, n) for epoch in range(200) for n in range(length + 5)}
    left.skipped |= {(epoch, n) for epoch in (200, 201) for n in range(0, length + 5, 3)}
    left.seek(0, 0)
    while whole.epoch < 202:
        place = (whole.epoch, whole.batch)
        batch = next(whole)
        if place not in left.skipped:
            assert (left.epoch, left.batch) == place and same(next(left), batch)


@pytest.mark.usefixtures("stories_of_a_window")
def test_ranks_share_each_batch_by_rows(documents):
    config = TrainingConfig(batch_size=6)
    whole = Stream(documents, 32, config)
    parts = [Stream(documents, 32, config, rank=rank, ranks=3) for rank in range(3)]
    while whole.epoch < 1:
        batch, shared = next(whole), [next(part) for part in parts]
        assert same(batch, [np.concatenate(field) for field in zip(*shared, strict=True)])
        assert {(part.epoch, part.batch) for part in parts} == {(whole.epoch, whole.batch)}
    with pytest.raises(StoriesError, match="among 4 processes"):
        Stream(documents, 32, config, ranks=4)
