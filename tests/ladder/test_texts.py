"""Which texts the batches of two epochs hold, and in what order of length."""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlxstories.ladder import Subject
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.data.length_order import length_order
from mlxstories.ladder.registry import CHECKS

V, B = 17, 4


def bench(**fields) -> Bench:
    return Bench(Subject(model=lambda: nn.Embedding(V, V), vocab_size=V, **fields))


def told(sizes, keep, width=40):
    """A bench with texts of these sizes, of which batches hold those to ``keep``, one a row."""
    rng = np.random.default_rng(8)
    tokenizer = SimpleNamespace(encode=lambda t: [ord(c) - 96 for c in t], decode=lambda ids: "")
    texts = ["".join(chr(97 + i) for i in rng.integers(0, 16, size)) for size in sizes]
    kept = [tokenizer.encode(text) for text, here in zip(texts, keep, strict=True) if here]
    table = np.array([ids + [0] * (width + 1 - len(ids)) for ids in kept])

    def batches(seed):
        shuffled = table[np.random.default_rng(seed).permutation(len(table))]
        for at in range(0, len(table) - B + 1, B):
            rows = shuffled[at : at + B]
            yield mx.array(rows[:, :-1]), mx.array(rows[:, 1:]), mx.array((rows[:, 1:] > 0) * 1.0)

    return bench(train_batches=batches, tokenizer=tokenizer, train_texts=texts)


SIZES = np.random.default_rng(9).integers(12, 40, 160)


@pytest.mark.parametrize(
    ("keep", "warned"),
    [
        (SIZES >= 24, True),
        (SIZES < 24, False),  # those longer than a row are left out
        (np.arange(160) % 2 > 0, False),
        (SIZES > 0, False),
        (SIZES >= 13, False),  # a few crumbs
    ],
)
def test_short_texts_that_no_batch_holds(keep, warned):
    check = CHECKS["short texts reach a batch"]
    drafts = check.ask(told(SIZES, keep), check.gauges()).drafts
    assert [(draft.code, draft.severity) for draft in drafts] == [("texts-never-seen", "warning")] * warned
    if warned:
        assert (drafts[0].evidence["longest_missing"], drafts[0].evidence["shortest_present"]) == (23, 24)


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
