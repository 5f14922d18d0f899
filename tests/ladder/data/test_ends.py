"""The token that ends a text, and what counts behind it."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from plain import B, T, V, bench, in_batches, rows

from mlxstories.batch import Batch
from mlxstories.ladder.bench.data.ends import ends
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import CHECKS


@pytest.mark.parametrize(("masked", "known"), [(1, False), (0, True)])
def test_the_end_that_a_mask_leaves_out(masked, known):
    table = rows(16) % (V - 2) + 1
    table[:, 7], table[:, 8:] = V - 1, 0
    mask = (np.arange(T) < 7 - masked).astype(np.float32)[None].repeat(B, 0)
    given = in_batches(table, lambda w: Batch(mx.array(w[:, :-1]), mx.array(w[:, 1:]), mx.array(mask)))
    found = ends(bench(train_batches=given))
    assert found.fill == 0
    assert (V - 1 in found.real) is known
    assert found.first == (V - 1 if masked else 0)


class Words:
    """Ids are numbers; 16 ends a text."""

    eos_id = 16

    def encode(self, text):
        return [int(word) for word in text.split()]

    def decode(self, ids):
        return " ".join(map(str, ids))


def ended(longer: int, fill: int):
    """Texts that end with 16, padded with ``fill``; the mask is so many cells too long."""

    def given(seed):
        rng = np.random.default_rng(seed)
        for _ in range(8):
            lengths = rng.integers(4, T - 3, (B, 1))
            places = np.arange(T + 1)
            table = np.where(places < lengths, rng.integers(1, 15, (B, T + 1)), fill)
            table = np.where(places == lengths, 16, table)
            mask = places[1:] <= lengths + longer
            yield mx.array(table[:, :-1]), mx.array(table[:, 1:]), mx.array(mask.astype(np.float32))

    return given


@pytest.mark.parametrize(("longer", "fill", "beyond"), [(0, 0, 0), (1, 0, 1), (0, 16, 0), (1, 16, 0)])
def test_padding_that_counts_behind_the_end_is_told(longer, fill, beyond):
    asked = bench(train_batches=ended(longer, fill), tokenizer=Words())
    assert ends(asked).beyond == beyond
    checked = CHECKS["nothing is trained after the end token"]
    drafts = checked.ask(asked, Gauges(checked.limits)).drafts
    assert [(draft.code, draft.severity) for draft in drafts] == [("padding-in-loss", "warning")] * beyond
