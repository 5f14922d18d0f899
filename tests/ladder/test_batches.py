"""Batches as the ladder reads them and hands them back."""

from __future__ import annotations

import dataclasses
import math

import mlx.core as mx
import numpy as np
import pytest
from plain import rows
from tiny import batches

from mlxstories.batch import Batch
from mlxstories.ladder.bench.batches import Convention, UnusableBatch, read_batch


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (([[1, 2], [3]], [[1, 2], [3]]), "inputs"),
        ((np.zeros((0, 4)), np.zeros((0, 4))), "empty"),
        ((np.zeros((2, 4)), np.zeros((2, 5))), "shape"),
        ((np.full((2, 4), 0.5), np.zeros((2, 4))), "whole"),
        ((np.full((2, 4), np.nan), np.zeros((2, 4))), "finite"),
        ({"inputs": np.zeros((2, 4))}, "targets"),
        (5, "int"),
    ],
)
def test_an_unusable_batch_says_why(batch, words):
    with pytest.raises(UnusableBatch, match=words):
        read_batch(batch)


def test_batches_come_back_in_the_form_they_had():
    rows = np.arange(12).reshape(3, 4)
    form = {"inputs": mx.array(rows), "targets": rows, "mask": np.ones((3, 4), np.float32), "name": "x"}
    back = read_batch(form).rows(slice(1, 3)).user()
    assert (
        back["name"] == "x"
        and isinstance(back["inputs"], mx.array)
        and isinstance(back["targets"], np.ndarray)
    )
    assert np.array_equal(np.array(back["inputs"]), rows[1:]) and back["mask"].shape == (2, 4)
    assert isinstance(read_batch(next(iter(batches(0)))).user(), Batch)
    assert len(read_batch((rows, rows)).user()) == 2


def test_a_batch_is_handed_back_as_it_was_read():
    read = read_batch((rows()[:, :-1], rows()[:, 1:]))
    for told in (Convention(), Convention(ignored=3), Convention(shifted=True)):
        batch = dataclasses.replace(read, convention=told)
        assert batch.user()[0].shape == read.inputs.shape
    assert math.isclose(float(read.by(Convention(ignored=3)).mask.sum()), float((rows()[:, 1:] != 3).sum()))
