"""Scripts whose targets are the inputs themselves, or labels that the loss shifts, as Hugging Face's models do."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
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


SHIFTS = """
def loss_fn(model, x, y):
    logits, labels = model(x)[:, :-1], y[:, 1:]
    nats, mask = nn.losses.cross_entropy(logits, mx.maximum(labels, 0)), labels != -100
    return (nats * mask).sum() / mask.sum()
"""
HALF = "mx.where(mx.arange(T + 1)[None] < mx.array(rng.integers(0, 5, (B, 1))), -100, data)"


def shifting(labels):
    text = MODEL.replace("\nmx.random.seed(0)", SHIFTS + "\nmx.random.seed(0)")
    return text + LOOP.replace("data[:, :-1], data[:, 1:]", labels)


@pytest.mark.parametrize(
    "labels", ["data, data", f"data, {HALF}", "*[data] * 2"], ids=["rows", "some", "one"]
)
def test_labels_that_the_loss_shifts_are_captured_as_targets(captured, labels):
    text = shifting(labels)
    if labels.startswith("*"):
        text = text.replace(
            "def loss_fn(model, x, y):\n    logits", "def loss_fn(model, x):\n    y = x\n    logits"
        )
        text = text.replace(labels, "data")
    script = captured(text)
    inputs, targets, *_ = batch = next(iter(script.subject.train_batches(0)))
    mask = batch[2] if len(batch) > 2 else np.ones(inputs.shape)
    assert inputs.shape == (4, 8) and (inputs[:, 1:] == targets[:, :-1])[mask[:, :-1] > 0].all()
    assert ((targets != -100) == (mask > 0)).all() and (mask == 0).any() == ("where" in labels)
    model = script.subject.model()
    nats = nn.losses.cross_entropy(model(mx.array(inputs)), mx.array(np.maximum(targets, 0))) * mx.array(mask)
    wanted = float(nats.sum()) / mask.sum()
    assert float(script.subject.loss(model, batch)) == pytest.approx(wanted, rel=1e-4)
    assert not [f for f in diagnose(script.subject, rungs=["init"]).findings if f.severity == "error"]


def test_labels_that_are_shifted_before_and_by_the_loss_are_named(captured):
    diagnosis = diagnose(captured(shifting("data[:, :-1], data[:, 1:]")).subject, rungs=["data"])
    assert diagnosis.findings[0].code == "targets-mismatched"
    assert "100.0% are the input 2 ahead" in diagnosis.findings[0].message
