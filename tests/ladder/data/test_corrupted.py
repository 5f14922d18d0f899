"""Noise in the inputs, drawn anew in each epoch, against mistakes that stay."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlxstories.ladder import Subject
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.data.corrupted import corrupted
from mlxstories.ladder.registry import CHECKS

V, T, B, N = 29, 24, 8, 32


TABLE = np.random.default_rng(3).integers(0, V, (N, T + 1)).astype(np.int32)


def epoch(seed, change):
    order = np.random.default_rng(seed).permutation(N)
    for at in range(0, N, B):
        rows = TABLE[order[at : at + B]]
        yield mx.array(change(rows[:, :-1].copy(), seed)), mx.array(rows[:, 1:])


def noise(share):
    def change(inputs, seed):
        rng = np.random.default_rng((seed, 5))
        return np.where(rng.random(inputs.shape) < share, rng.integers(0, V, inputs.shape), inputs)

    return change


def same_noise(inputs, _):
    return (inputs + (inputs % 5 == 0)) % V


def other_rows(inputs, seed):
    return inputs[np.random.default_rng((seed, 6)).permutation(len(inputs))]


@pytest.mark.parametrize(
    ("change", "on_purpose"),
    [(noise(0.15), True), (noise(0.9), False), (same_noise, False), (other_rows, False)],
)
def test_what_is_drawn_anew_is_on_purpose_and_what_stays_is_a_mistake(change, on_purpose):
    bench = Bench(Subject(model=lambda: None, vocab_size=V, train_batches=lambda seed: epoch(seed, change)))
    checked = CHECKS["targets of train_batches follow the inputs"]
    codes = [draft.code for draft in checked.ask(bench, checked.gauges()).drafts]
    assert corrupted(bench) is on_purpose
    assert codes == ([] if on_purpose else ["targets-mismatched"])


def test_rows_as_they_are_are_not_corrupted():
    bench = Bench(
        Subject(model=lambda: None, vocab_size=V, train_batches=lambda seed: epoch(seed, lambda x, _: x))
    )
    assert not corrupted(bench)
