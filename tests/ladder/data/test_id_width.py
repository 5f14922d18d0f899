"""Ids that lost their higher bits."""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from tiny import B, T, judged, subject

from mlxstories.ladder.bench import Bench


def stream(size: int, top: int, count: int = 60):
    rng = np.random.default_rng(1)
    table = rng.integers(0, top, (count, B, T + 1))
    table[0, 0, 0] = top - 1
    return lambda seed: [(mx.array(rows[:, :-1]), mx.array(rows[:, 1:])) for rows in table]


@pytest.mark.parametrize(
    ("top", "size", "told"),
    [(256, 1000, ["tokenizer-mismatch"]), (200, 1000, []), (256, 256, []), (257, 1000, [])],
)
def test_ids_that_end_where_eight_bits_do(top, size, told):
    setup = subject(vocab_size=size, train_batches=stream(size, top))
    assert judged("ids keep all their bits", Bench(setup)) == [(code, "warning") for code in told]


@pytest.mark.parametrize(("highest", "told"), [(900, ["tokenizer-mismatch"]), (100, [])])
def test_a_tokenizer_shows_that_ids_have_lost_bits(highest, told):
    tokenizer = SimpleNamespace(encode=lambda text: list(range(highest)), decode=lambda ids: " ")
    setup = subject(
        vocab_size=1000, train_batches=stream(1000, 230), tokenizer=tokenizer, train_texts=["a story"]
    )
    assert judged("ids keep all their bits", Bench(setup)) == [(code, "error") for code in told]
