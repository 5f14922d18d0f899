"""Held-out rows are not trained on, though the windows of a text may overlap."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from tiny import T, V, subject

from mlxstories.batch import Batch
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.exchange.material import material

WIDTH = 3 * T
HALF = max(12, WIDTH // 2)  # tokens
TEXT = np.random.default_rng(0).integers(0, V, 8000)


def windows(starts):
    """Batches of these windows of the text, int [B] each."""

    def epoch(seed):
        for at in starts:
            rows = np.stack([TEXT[s : s + WIDTH + 1] for s in at])
            yield Batch(mx.array(rows[:, :-1]), mx.array(rows[:, 1:]), mx.ones((len(at), WIDTH)))

    return Bench(subject(train_batches=epoch))


def stretches(rows):
    return {tuple(row[i : i + HALF]) for row in rows.tokens.tolist() for i in range(WIDTH + 2 - HALF)}


def shared(found):
    return stretches(found.held) & set().union(*map(stretches, found.batches))


def test_windows_that_slide_by_a_token_are_left_out_of_training_before_those_held_out():
    found = material(windows([[i, 2000 + i, 4000 + i, 6000 + i] for i in range(120)]))
    assert found.unseen and not shared(found)
    assert found.held.shape[0] >= 40 and len({b.inputs.tobytes() for b in found.batches}) >= 60


def test_of_windows_drawn_at_random_those_held_out_are_other_ones():
    rng = np.random.default_rng(0)
    found = material(windows(rng.integers(0, len(TEXT) - WIDTH - 1, (24, 4))))
    assert found.unseen and not shared(found)
    assert 4 <= found.held.shape[0] < 8  # some of the last eight are trained on


@pytest.mark.parametrize("apart", [1, WIDTH])
def test_what_is_held_out_of_a_text_that_is_read_again_and_again_is_not_unseen(apart):
    found = material(windows([[apart * (i % 4) + k for k in (0, 400, 800, 1200)] for i in range(80)]))
    assert not found.unseen and shared(found)


def test_padding_makes_no_row_known():
    def epoch(seed):
        rng = np.random.default_rng(seed)
        for _ in range(40):
            rows = np.concatenate([rng.integers(1, V, (4, 8)), np.zeros((4, WIDTH - 7), int)], 1)
            mask = np.broadcast_to(np.arange(WIDTH) < 8, (4, WIDTH))
            yield Batch(mx.array(rows[:, :-1]), mx.array(rows[:, 1:]), mx.array(mask.astype(np.float32)))

    found = material(Bench(subject(train_batches=epoch)))
    assert found.unseen and found.held.shape[0] == 16
