"""Which rows and places of a batch count."""

from __future__ import annotations

import mlx.nn as nn
import pytest
from tiny import accumulating, ask, nats, told


@pytest.mark.parametrize(
    ("take", "wanted"),
    [(lambda index: 0, ("failed", [("rows-ignored", "error")])), (int, ("passed", []))],
)
def test_every_row_matters_to_a_step(take, wanted):
    assert told(ask("every row matters to a step", train_step=accumulating(take))) == wanted


def last_place(model, batch):
    return nn.losses.cross_entropy(model(batch.inputs)[:, -1], batch.targets[:, -1]).mean()


@pytest.mark.parametrize(
    ("loss", "wanted"), [(last_place, ("failed", [("wrong-loss", "error")])), (nats, ("passed", []))]
)
def test_every_place_counts_in_a_loss(loss, wanted):
    assert told(ask("every place counts in the loss", loss=loss)) == wanted


def some_places(places: slice):
    def loss(model, batch):
        return nn.losses.cross_entropy(model(batch.inputs)[:, places], batch.targets[:, places]).mean()

    return loss


@pytest.mark.parametrize(("places", "told"), [(slice(5), True), (slice(12), False), (slice(10, None), False)])
def test_a_loss_of_the_first_places_alone(places, told):
    found = ask("every place counts in the loss", loss=some_places(places))
    assert (found.status == "failed") is told
    assert not told or "the first 5 places" in found.drafts[0].message
