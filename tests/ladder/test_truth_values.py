"""Truth values in the place of ids."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from tiny import B, T, V, subject

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.registry import CHECKS


def told(name: str, **fields) -> list[tuple[str, str]]:
    check, bench = CHECKS[name], Bench(subject(**fields))
    with bench.protected():
        return [(draft.code, draft.severity) for draft in check.ask(bench, check.gauges()).drafts]


@pytest.mark.parametrize(("share", "accused"), [(1.0, True), (0.97, False)])
def test_targets_that_are_one_of_two_ids(share, accused):
    def made(seed):
        rng = np.random.default_rng(seed)
        for _ in range(8):
            rows = rng.integers(2, V, (B, T + 1))
            rows = np.where(rng.random(rows.shape) < share, rows > V // 2, rows)
            yield mx.array(rows[:, :-1]), mx.array(rows[:, 1:])

    found = told("batches differ", train_batches=made)
    assert found == [("constant-batches", "warning")] * accused
    assert told("batches differ", train_batches=made, vocab_size=8) == []
