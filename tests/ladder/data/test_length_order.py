"""Batches in order of length."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from plain import B, V, bench

from mlxstories.ladder.bench.data.length_order import length_order
from mlxstories.ladder.registry import CHECKS

SIZES = np.random.default_rng(9).integers(12, 40, 160)


def in_order(sizes, shuffle):
    """Rows of these sizes in this order, of one epoch after the other; batches shuffled, in none, one or all."""

    def batches(seed):
        rng = np.random.default_rng(seed)
        starts = np.arange(0, len(sizes) - B + 1, B)
        for at in rng.permutation(starts) if shuffle(seed) else starts:
            ids = rng.integers(1, V, (B, 41))
            mask = np.arange(40) < sizes[at : at + B, None]
            yield mx.array(ids[:, :-1]), mx.array(ids[:, 1:]), mx.array(mask * 1.0)

    return batches


@pytest.mark.parametrize(
    ("sizes", "shuffle", "warned"),
    [
        (np.sort(SIZES), lambda seed: False, True),
        (np.sort(SIZES)[::-1], lambda seed: False, True),
        (np.sort(SIZES), lambda seed: True, False),  # rows of like length in a batch
        (np.sort(SIZES), lambda seed: seed > 0, False),  # the first epoch a curriculum
        (SIZES, lambda seed: False, False),
        (np.sort(SIZES)[: 8 * B], lambda seed: False, False),  # few batches
        (30 + np.sort(SIZES) // 8, lambda seed: False, False),  # of much the same length
    ],
)
def test_batches_in_order_of_length(sizes, shuffle, warned):
    check = CHECKS["batches are not in order of length"]
    drafts = check.ask(bench(train_batches=in_order(sizes, shuffle)), check.gauges()).drafts
    assert [(draft.code, draft.severity) for draft in drafts] == [("constant-batches", "warning")] * warned


def test_rows_of_one_length_are_in_no_order():
    found = length_order(bench(train_batches=in_order(np.full(160, 20), lambda seed: False)))
    assert (found.first, found.second, found.shortest, found.longest) == (0, 0, 20, 20)
