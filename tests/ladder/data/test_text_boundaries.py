"""Rows of several texts, and of a prompt with its answer."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from spelled import TEXTS, Digits, dealt, rows_of
from tiny import judged


def ruled(name: str, table: np.ndarray, skipped: int = 0):
    """What a data check says of rows, of which the first targets do not count."""

    def dealt_out(seed):
        for x, y in dealt(table):
            yield x, y, mx.broadcast_to(mx.arange(y.shape[1]) >= skipped, y.shape).astype(mx.float32)

    return judged(name, train_batches=dealt_out, tokenizer=Digits(), train_texts=TEXTS)


@pytest.mark.parametrize(
    "between, wanted",
    [("", [("end-never-trained", "error")]), ("c", []), ("0", [])],
    ids=["none", "end", "other"],
)
def test_texts_joined_with_nothing_between_them(between, wanted):
    assert ruled("texts that share a row are told apart", rows_of([between.join(TEXTS)], 40)) == wanted


def test_a_prompt_that_was_erased_with_its_labels():
    rows = rows_of(TEXTS, 40)[:, :-1]
    erased = rows.copy()
    erased[:, 1:9] = 0
    name = "the prompt is there to be read"
    assert ruled(name, erased, 8) == [("tokenizer-mismatch", "error")]
    assert ruled(name, rows, 8) == []


def test_padding_in_front_of_a_text_erases_nothing():
    rows = np.array([[0] * 10 + Digits().encode(text)[:30] for text in TEXTS])
    assert ruled("the prompt is there to be read", rows, 9) == []
