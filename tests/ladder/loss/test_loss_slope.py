"""Whether the loss has a gradient at all."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from tiny import V, subject

from mlxstories.findings import ERROR, Finding
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.loss.loss_slope import loss_slope
from mlxstories.ladder.registry import CHECKS
from mlxstories.ladder.where import located


def nats(logits, batch):
    return nn.losses.cross_entropy(logits, batch.targets, reduction="mean")


def whole(model, batch):
    return nats(model(batch.inputs), batch)


def stopped(model, batch):
    return nats(mx.stop_gradient(model(batch.inputs)), batch)


def below_the_largest(model, batch):
    """The largest logit is taken off, for the range of the exponential, and needs no gradient."""
    logits = model(batch.inputs)
    return nats(logits - mx.stop_gradient(logits.max(axis=-1, keepdims=True)), batch)


def errors_made(model, batch):
    return (model(batch.inputs).argmax(-1) != batch.targets).mean() + 0 * whole(model, batch)


def bias_alone(model, batch):
    """The gradient reaches one parameter of five."""
    return nats(mx.stop_gradient(model(batch.inputs) - model.head.bias) + model.head.bias, batch)


def step_of(loss):
    def step(model, optimizer, batch):
        value, gradients = nn.value_and_grad(model, loss)(model, batch)
        optimizer.update(model, gradients)
        return value

    return step


def codes(**fields) -> list[str]:
    check = CHECKS["the loss has a gradient"]
    return [draft.code for draft in check.ask(Bench(subject(**fields)), check.gauges()).drafts]


@pytest.mark.parametrize(
    ("loss", "accused"),
    [(whole, False), (below_the_largest, False), (bias_alone, False), (stopped, True), (errors_made, True)],
)
def test_a_loss_without_gradient_is_told(loss, accused):
    assert codes(loss=loss) == ["wrong-loss"] * accused
    assert codes(loss=loss, train_step=step_of(loss)) == ["wrong-loss"] * accused


def test_a_step_that_takes_its_gradient_elsewhere_is_not():
    assert codes(loss=stopped, train_step=step_of(whole)) == []


def test_where_nothing_is_trained_it_is_no_question_of_the_loss():
    def frozen():
        model = subject().model()
        model.freeze()
        return model

    assert codes(loss=whole, model=frozen) == []


def test_the_length_of_our_own_gradient():
    bench = Bench(subject(loss=lambda model, batch: 2 * whole(model, batch)))
    found = loss_slope(bench)
    assert found.loss == pytest.approx(2 * found.ours, rel=1e-5)
    assert found.value / 2 == pytest.approx(np.log(V), rel=0.5)


def test_the_line_that_stops_it():
    fields = {"where": "loss, cut off"}
    found = located(Bench(subject(loss=stopped)), Finding("wrong-loss", ERROR, "init", "", **fields)).where
    assert found["file"] == __file__
    assert "mx.stop_gradient(" in Path(__file__).read_text().splitlines()[found["line"] - 1]
    found = located(
        Bench(subject(loss=errors_made)), Finding("wrong-loss", ERROR, "init", "", **fields)
    ).where
    assert found["line"] == errors_made.__code__.co_firstlineno
