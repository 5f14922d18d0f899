"""Texts that no batch holds: most of them, or the short ones alone."""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from plain import B, T, bench, given, in_batches

from mlxstories.ladder.bench.data.coverage import Coverage, Searched, coverage, searched
from mlxstories.ladder.registry import CHECKS


def test_texts_that_no_epoch_reaches():
    letters = "abcdefghijklmnop"
    tokenizer = SimpleNamespace(
        encode=lambda text: [letters.index(c) + 1 for c in text],
        decode=lambda ids: "".join(letters[i - 1] for i in ids),
    )
    rng = np.random.default_rng(7)
    texts = ["".join(rng.choice(list(letters), T + 1)) for _ in range(40)]
    table = np.array([tokenizer.encode(text) for text in texts])
    told = {"tokenizer": tokenizer, "train_texts": texts}
    whole = coverage(bench(train_batches=in_batches(table), **told))
    tail = coverage(bench(train_batches=in_batches(table[36:]), **told))
    assert whole.both == whole.texts == 1
    assert (tail.first, tail.both, tail.texts) == (0.1, 0.1, 0.1)


@pytest.mark.parametrize(("rows", "single"), [(1, True), (4, False)])
def test_texts_that_reach_no_batch(rows, single):
    seen = Coverage(first=0.05, both=0.1, texts=0.9, stretches=100, rows=rows)
    (draft,) = given("the texts reach a batch", {coverage: seen}).drafts
    assert draft.severity == "error" if single else "warning"
    assert ("hold one row each" in draft.message) == single
    assert "5.0% of the training texts, two epochs 10.0%" in draft.message


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


@pytest.mark.parametrize(("alike", "told"), [(1, True), (3, False)])
def test_short_texts_are_missed_where_they_and_nearly_they_alone_are_missing(alike, told):
    """Of each pair, one there and one missing, the missing is shorter; as long counts half."""
    sizes = np.array([10] * (alike + 20) + [20] * (60 - alike))
    there = np.array([True] * alike + [False] * 20 + [True] * (60 - alike))
    found = Searched(there, there, np.arange(80), sizes)
    verdict = given("short texts reach a batch", {searched: found})
    assert [draft.code for draft in verdict.drafts] == (["texts-never-seen"] if told else [])
