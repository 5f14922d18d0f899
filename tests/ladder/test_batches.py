"""Batches as the ladder reads them and hands them back."""

from __future__ import annotations

import dataclasses
import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from plain import rows
from tiny import batches, subject, uneven

from mlxstories.batch import Batch
from mlxstories.ladder import diagnose
from mlxstories.ladder.bench.batches import Convention, UnusableBatch, joined, read_batch


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


def with_more(rows=None):
    rows = np.arange(20).reshape(4, 5) if rows is None else rows
    return {
        "inputs": rows,
        "targets": rows,
        "lengths": mx.array([5, 4, 3, 2]),
        "segments": mx.array(rows % 2),
        "places": mx.arange(5),
        "hidden": mx.zeros((4, 1, 5, 5), mx.bfloat16),
        "texts": ["a", "b", "c", "d"],
        "scale": mx.array(2.0),
        "ragged": [[1], [2, 3]],
    }


def test_extra_fields_of_a_batch_go_by_its_rows_and_columns():
    read = read_batch(with_more())
    one = read.rows(np.array([3, 1])).cut(2).user()
    assert one["lengths"].tolist() == [2, 4] and one["texts"] == ["d", "b"]
    assert one["segments"].tolist() == [[1, 0], [1, 0]] and one["places"].tolist() == [0, 1]
    assert one["hidden"].shape == (2, 1, 2, 2) and one["hidden"].dtype == mx.bfloat16
    assert one["scale"].item() == 2 and one["ragged"] == [[1], [2, 3]]
    both = joined([read, read]).user()
    assert both["lengths"].shape == (8,) and both["places"].shape == (5,) and both["hidden"].shape[0] == 8
    other = read.with_(**{name: np.ones((6, 3), np.int64) for name in ("inputs", "targets", "mask")}).user()
    assert other["lengths"].tolist() == [5, 4, 3, 2, 5, 4] and other["segments"].shape == (6, 3)


def test_a_loss_that_needs_an_extra_field_is_examined():
    def dicts(seed):
        for batch in uneven(seed):
            yield {
                "inputs": batch.inputs,
                "targets": batch.targets,
                "lengths": batch.mask.sum(1).astype(mx.int32),
                "mask": batch.mask,
            }

    def loss(model, batch):
        mask = mx.arange(batch["inputs"].shape[1]) < batch["lengths"][:, None]
        nats = nn.losses.cross_entropy(model(batch["inputs"]), batch["targets"])
        return (nats * mask).sum() / mask.sum()

    diagnosis = diagnose(subject(train_batches=dicts, loss=loss))
    assert diagnosis.healthy, diagnosis.findings


def test_what_says_the_same_as_the_mask_goes_with_it():
    mask = (np.arange(5) < np.array([5, 4, 3, 2])[:, None]).astype(np.float32)
    batch = read_batch(with_more() | {"mask": mask, "attention": mask > 0, "ends": np.array([6, 5, 4, 3])})
    other = batch.with_(mask=mask[::-1]).user()
    assert np.array_equal(other["attention"], mask[::-1] > 0)
    assert other["lengths"].tolist() == [2, 3, 4, 5] and other["ends"].tolist() == [3, 4, 5, 6]
    assert batch.cut(3).user()["lengths"].tolist() == [3, 3, 3, 2]
