"""Rows, targets and masks: where a target stands, what fills rows up, and what batches clip."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from tiny import V, ask, batches

from mlxstories.ladder.bench.batches import read_batch
from mlxstories.ladder.bench.data.rows import fillers_of, shift_rates
from mlxstories.ladder.checks.data.padding import padding_of
from mlxstories.ladder.registry import CHECKS


def test_shift_rates_find_the_right_place_and_forgive_seams():
    rows = np.random.default_rng(0).integers(1, 50, (6, 41))
    rows[:, 20] = 0  # documents end here, and their end token is a target only
    inputs, targets = rows[:, :-1].copy(), rows[:, 1:]
    inputs[:, 20] = 7
    batch = read_batch((inputs, targets))
    rates, _ = shift_rates([batch])
    assert rates[1] == 1.0 and max(v for k, v in rates.items() if k != 1) < 0.2
    late, _ = shift_rates([read_batch((rows[:, :-3], rows[:, 3:]))])
    assert late[3] == 1.0


def test_padding_is_a_token_that_repeats_at_the_ends_alone():
    def padding(*batch):
        return padding_of(fillers_of([read_batch(batch)]), CHECKS["padding is masked"].gauges())

    rng = np.random.default_rng(0)
    rows = rng.integers(1, 50, (8, 30))
    rows[:, 22:] = 0
    assert padding(rows, rows).token == 0
    assert padding(rows, rows, (rows > 0).astype(np.float32)) is None
    common = np.where(rng.random((64, 30)) < 0.7, 0, rng.integers(1, 50, (64, 30)))
    assert padding(common, common) is None


@pytest.mark.parametrize(("highest", "told"), [(6, ["targets-mismatched"]), (V - 1, [])])
def test_targets_that_the_batches_clip(highest, told):
    def clipped(seed):
        return [batch._replace(targets=mx.minimum(batch.targets, highest)) for batch in batches(seed)]

    found = ask("targets of train_batches follow the inputs", train_batches=clipped)
    assert [draft.code for draft in found.drafts] == told
    assert all(f"above id {highest}" in draft.message for draft in found.drafts)
