"""Ids that a loss leaves out."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import pytest
from spelled import TEXTS, Digits
from tiny import T, V, judged, subject

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.loss.ignored_ids import ignored_ids


def leaving_out(token):
    def loss(model, batch):
        kept = batch.mask * (batch.targets != token)
        nats = nn.losses.cross_entropy(model(batch.inputs), batch.targets)
        return (nats * kept).sum() / mx.maximum(kept.sum(), 1)

    return loss


def test_an_id_that_the_loss_leaves_out_is_found_and_weighed():
    fields = {"loss": leaving_out(3), "tokenizer": Digits(), "train_texts": TEXTS}
    found = ignored_ids(Bench(subject(**fields)))
    inner = "".join(text.strip(text[0] + text[-1]) for text in TEXTS)
    assert list(found.shares) == [3] and found.tried == V - 1
    assert found.shares[3] == pytest.approx(inner.count("3") / len(inner), abs=0.01)
    assert judged("the loss leaves out no token of the texts", **fields) == [("wrong-loss", "error")]


def test_a_loss_of_some_places_leaves_out_no_id():
    def second_half(model, batch):
        late = batch.mask * (mx.arange(T) >= T // 2)
        nats = nn.losses.cross_entropy(model(batch.inputs), batch.targets)
        return (nats * late).sum() / late.sum()

    for loss in (second_half, leaving_out(-100)):
        assert ignored_ids(Bench(subject(loss=loss, tokenizer=Digits(), train_texts=TEXTS))).shares == {}
