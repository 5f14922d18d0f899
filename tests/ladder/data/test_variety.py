"""Batches that differ from their neighbours, from those of other epochs, and within."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from plain import B, T, V, bench, in_batches, rows
from tiny import judged

from mlxstories.ladder.bench.data.variety import neighbours


def test_neighbours_that_move_on_and_batches_that_come_again():
    stream = np.random.default_rng(6).integers(1, V, 200)
    moving = stream[np.arange(64)[:, None] + np.arange(T + 1)]
    found = neighbours(bench(train_batches=in_batches(moving)))
    assert (found.moved_on, found.by) == (1.0, 1)
    twice = np.repeat(rows(16).reshape(4, B, -1), 2, axis=0).reshape(32, -1)
    assert neighbours(bench(train_batches=in_batches(twice))).delivered_again == 0.5
    apart = neighbours(bench())
    assert apart.moved_on == apart.delivered_again == 0


@pytest.mark.parametrize(("stride", "share"), [(1, 1.0), (3, 1.0), (T, 0.0)])
def test_batches_that_are_the_one_before_moved_on(stride, share):
    stream = np.random.default_rng(0).integers(0, V, (B, 40 * T))

    def made(seed):
        for start in range(0, 8 * stride, stride):
            rows = stream[:, start : start + T + 1]
            yield mx.array(rows[:, :-1]), mx.array(rows[:, 1:])

    on = bench(train_batches=made)
    found = neighbours(on)
    assert (found.batch_moved_on, found.batch_by) == (share, stride if share else 0)
    assert judged("successive batches differ", on) == [("constant-batches", "error")] * bool(share)


@pytest.mark.parametrize(("apart", "carried"), [(1, 1 - 1 / B), (B // 4, 0.75), (B, 0.0)])
def test_rows_that_the_next_batch_holds_too(apart, carried):
    rows = np.random.default_rng(0).integers(0, V, (8 * B, T + 1))

    def made(seed):
        for start in range(0, 7 * B + 1, apart):
            part = rows[start : start + B]
            yield mx.array(part[:, :-1]), mx.array(part[:, 1:])

    on = bench(train_batches=made)
    assert neighbours(on).carried_over == pytest.approx(carried)
    assert judged("successive batches differ", on) == [("constant-batches", "error")] * bool(carried)


def test_rows_drawn_with_replacement_are_not_carried_over():
    rows, rng = np.random.default_rng(0).integers(0, V, (4 * B, T + 1)), np.random.default_rng(1)

    def made(seed):
        for _ in range(60):
            part = rows[rng.integers(0, len(rows), B)]
            yield mx.array(part[:, :-1]), mx.array(part[:, 1:])

    on = bench(train_batches=made)
    assert 0.1 < neighbours(on).carried_over < 0.4
    assert judged("successive batches differ", on) == []


@pytest.mark.parametrize(("share", "accused"), [(1.0, True), (0.97, False)])
def test_targets_that_are_all_one_id(share, accused):
    def made(seed):
        rng = np.random.default_rng(seed)
        for _ in range(8):
            rows = np.where(rng.random((B, T + 1)) < share, 1, rng.integers(2, V, (B, T + 1)))
            rows[:, 0] = rng.integers(2, V, B)  # so that rows differ
            yield mx.array(rows[:, :-1]), mx.array(rows[:, 1:])

    assert judged("batches differ", bench(train_batches=made)) == [("constant-batches", "error")] * accused


@pytest.mark.parametrize(("share", "accused"), [(1.0, True), (0.97, False)])
def test_targets_that_are_one_of_two_ids(share, accused):
    def made(seed):
        rng = np.random.default_rng(seed)
        for _ in range(8):
            rows = rng.integers(2, V, (B, T + 1))
            rows = np.where(rng.random(rows.shape) < share, rows > V // 2, rows)
            yield mx.array(rows[:, :-1]), mx.array(rows[:, 1:])

    found = judged("batches differ", bench(train_batches=made))
    assert found == [("constant-batches", "warning")] * accused
    assert judged("batches differ", bench(train_batches=made, vocab_size=8)) == []
