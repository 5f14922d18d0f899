"""Scripts whose targets are the inputs themselves, so that only their places tell the two apart."""

from __future__ import annotations

import numpy as np
import pytest

from mlxstories.ladder import diagnose
from tests.ladder.scripts import LOOP, MODEL

TWICE = LOOP.replace("data[:, :-1], data[:, 1:]", "data[:, :-1], data[:, :-1]")
ONCE = LOOP.replace("data[:, :-1], data[:, 1:]", "data[:, :-1]")
ONE_ARGUMENT = MODEL.replace("def loss_fn(model, x, y):", "def loss_fn(model, x):\n    y = x")


@pytest.mark.parametrize("text", [MODEL + TWICE, ONE_ARGUMENT + ONCE], ids=["twice", "once"])
def test_targets_that_are_the_inputs_are_captured_and_named(captured, text):
    subject = captured(text).subject
    batch = next(iter(subject.train_batches(0)))
    assert np.array_equal(batch[0], batch[1])
    found = diagnose(subject, rungs=["data"]).findings
    assert found[0].code == "targets-not-shifted"


def test_of_two_alike_the_first_is_read_and_the_other_scored(captured):
    subject = captured(MODEL + TWICE).subject
    model = subject.model()
    inputs = np.ones((4, 8), int)
    losses = [
        float(subject.loss(model, (inputs, np.full((4, 8), target), np.ones((4, 8))))) for target in (1, 2)
    ]
    assert losses[0] != pytest.approx(losses[1])
