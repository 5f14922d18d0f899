"""A model that training and validation call otherwise."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import pytest
from tiny import Tiny, V, judged


class Shifting(Tiny):
    """Takes rotated embeddings where it is told to."""

    def __call__(self, tokens, turned=False):
        return super().__call__((tokens + 5) % V if turned else tokens)


def validated(model, batches):
    total = count = 0.0
    for batch in batches:
        nats = nn.losses.cross_entropy(model(batch.inputs), batch.targets)
        total, count = total + (nats * batch.mask).sum().item(), count + batch.mask.sum().item()
    return {"loss": total / count}


def test_a_model_that_training_calls_otherwise_is_found():
    def loss(turned):
        return lambda model, batch: nn.losses.cross_entropy(
            model(batch.inputs, turned), batch.targets, reduction="mean"
        )

    name = "training and validation call the model alike"
    for turned, wanted in ((False, []), (True, [("wrong-loss", "error")])):
        assert judged(name, model=Shifting, loss=loss(turned), evaluate=validated) == wanted


@pytest.mark.parametrize(("sign", "penalty"), [(1, 0.1), (-1, 0)])
def test_a_term_of_the_weights_or_a_sign_is_no_other_call(sign, penalty):
    def loss(model, batch):
        nats = nn.losses.cross_entropy(model(batch.inputs), batch.targets, reduction="mean")
        return sign * nats + penalty * mx.square(model.head.weight).sum()

    assert judged("training and validation call the model alike", loss=loss, evaluate=validated) == []
