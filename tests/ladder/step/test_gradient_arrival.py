"""What of the loss's gradient reaches the optimiser."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_map
from plain import given
from tiny import Tiny, accumulating, ask, nats, stepping, told

from mlxstories.faults.recipe import built_in
from mlxstories.ladder import diagnose
from mlxstories.ladder.bench.step.gradient_arrival import (
    Arrival,
    GradientArrival,
    _taking_part,
    gradient_arrival,
    loss_factors,
)

GRADIENT = "the loss's gradient reaches the optimiser"


def sgd():
    return optim.SGD(0.1)


def of_another_model(seed=3):
    mx.random.seed(seed)  # so small a model's gradient may resemble that of any other draw
    other = Tiny()

    def step(model, optimizer, batch):
        value, gradients = nn.value_and_grad(other, nats)(other, batch)
        optimizer.update(model, gradients)
        return value

    return step


@pytest.mark.parametrize(
    "fields",
    [
        {"train_step": of_another_model()},
        {"train_step": stepping(lambda g: tree_map(mx.zeros_like, g))},
        {"train_step": accumulating(int, 1.0), "optimizer": sgd},
    ],
)
def test_another_gradient_is_named(fields):
    assert told(ask(GRADIENT, **fields)) == ("failed", [("gradient-mismatch", "error")])


@pytest.mark.parametrize(
    "fields",
    [
        {"train_step": stepping()},
        {"train_step": stepping(lambda g: optim.clip_grad_norm(g, 0.1)[0]), "optimizer": sgd},
        {"train_step": stepping(lambda g: tree_map(lambda a: mx.clip(a, -1e-3, 1e-3), g))},
        {"train_step": accumulating(int), "optimizer": sgd},
        {"train_step": stepping(lambda g: {"head": g["head"]})},
    ],
)
def test_clipped_accumulated_or_of_one_part_it_is_sound(fields):
    assert told(ask(GRADIENT, **fields)) == ("passed", [])


def quarter(model, batch):
    return nats(model, batch) / 4


def in_parts(number, change=lambda gradients: gradients):
    """Adds up the gradients of so many parts, each of which has a quarter of its mean for its loss."""

    def step(model, optimizer, batch):
        value, gradients = nn.value_and_grad(model, quarter)(model, batch)
        optimizer.update(model, change(tree_map(lambda g: number * g, gradients)))
        return value

    return step


@pytest.mark.parametrize(
    ("step", "found"),
    [
        (in_parts(4), []),
        (in_parts(4, lambda g: tree_map(lambda a: a / 2, g)), []),  # as clipped
        (in_parts(16), [("gradient-mismatch", "error")]),
    ],
)
def test_parts_whose_losses_are_divided_by_their_number_are_added(step, found):
    verdict = ask(GRADIENT, loss=quarter, train_step=step, optimizer=sgd)
    assert told(verdict) == ("failed" if found else "passed", found)


@pytest.mark.long
@pytest.mark.parametrize(
    "fault, code",
    [("gradient-of-another-model", "gradient-mismatch"), ("same-half-accumulated", "rows-ignored")],
)
def test_a_planted_fault_is_named_on_its_rung(fault, code):
    mx.random.seed(0)  # as the ladder does before it draws its own model
    diagnosis = diagnose(built_in(fault=fault), rungs=["minimal"])
    assert [f.code for f in diagnosis.findings if f.severity == "error"] == [code]


class Biased(Tiny):
    """The mix's biases start at 0, where weight decay leaves them."""

    def __init__(self):
        super().__init__()
        self.mix.bias = mx.zeros_like(self.mix.bias)


def test_where_no_gradient_arrives_what_decay_leaves_at_0_is_not_called_frozen():
    nothing = {"model": Biased, "train_step": stepping(lambda g: tree_map(mx.zeros_like, g))}
    assert told(ask("a step moves every parameter", **nothing)) == ("skipped", [])
    assert told(ask(GRADIENT, **nothing)) == ("failed", [("gradient-mismatch", "error")])
    # the rest of the gradient arrives: what stands still is left out
    part = {"model": Biased, "train_step": stepping(lambda g: {"head": g["head"]})}
    assert told(ask("a step moves every parameter", **part)) == ("failed", [("frozen-parameters", "error")])


def test_what_decay_alone_moves_is_frozen():
    zeroed = stepping(lambda g: tree_map(lambda a: mx.zeros_like(a) if a.ndim == 2 else a, g))
    assert told(ask("a step moves every parameter", train_step=zeroed)) == (
        "failed",
        [("frozen-parameters", "error")],
    )
    thinned = stepping(lambda g: tree_map(lambda a: mx.where(mx.abs(a) < mx.abs(a).max(), 0, a), g))
    assert told(ask("a step moves every parameter", train_step=thinned)) == ("passed", [])


@pytest.mark.parametrize(
    ("ratios", "told"), [((2.97, 3.03), True), ((2.0, 4.0), False), ((1.2, 1.2), False), ((1.4, 1.4), True)]
)
def test_gradients_of_another_length(ratios, told):
    steps = tuple(Arrival(2.0, 2.0, 1.0, 1.0, ratio, ratio, 1, 1.0) for ratio in ratios)
    taken = {gradient_arrival: GradientArrival(steps, True), loss_factors: (3.0, 3.0)}
    verdict = given("the loss's gradient reaches the optimiser", taken)
    assert [draft.code for draft in verdict.drafts] == (["gradient-mismatch"] if told else [])
    assert verdict.status == ("failed" if told else "passed")


def test_gradients_as_long_as_the_calls_that_are_collected_were_added():
    steps = (Arrival(2.0, 2.0, 1.0, 1.0, 4.0, 4.0, 4, 1.0),) * 2
    taken = {gradient_arrival: GradientArrival(steps, True), loss_factors: (1.0, 1.0)}
    (draft,) = given("the loss's gradient reaches the optimiser", taken).drafts
    assert "gradients of the 4 calls that it collects are added" in draft.message


def test_how_many_entries_take_part():
    assert _taking_part(np.zeros(9)) == 0
    assert _taking_part(np.eye(1, 9)[0] + 1e-6) == pytest.approx(1, rel=1e-4)
    assert _taking_part(np.full(9, -3e-20)) == pytest.approx(9)


@pytest.mark.parametrize(
    ("ratios", "norms", "returned", "heeds", "told"),
    [
        ((0.125, 0.125), (0.37, 0.36), 2.0, True, True),
        ((0.125, 0.125), (0.37, 0.36), 2.0, False, False),  # Adam does not mind
        ((0.125, 0.121), (0.36, 0.36), 2.0, True, False),  # clipped to one norm
        ((0.125, 0.125), (0.37, 0.36), 0.25, True, False),  # an eighth of the loss is what is minimised
        ((0.9, 0.9), (2.6, 2.5), 2.0, True, False),
    ],
)
def test_gradients_that_are_a_share_of_the_loss_s(ratios, norms, returned, heeds, told):
    steps = tuple(
        Arrival(2.0, returned, 1.0, 1.0, *arrived, 1, 1.0) for arrived in zip(ratios, norms, strict=True)
    )
    taken = {gradient_arrival: GradientArrival(steps, heeds), loss_factors: (1.0, 1.0)}
    drafts = given("the loss's gradient reaches the optimiser", taken).drafts
    assert [(d.code, d.severity) for d in drafts] == ([("gradient-mismatch", "error")] if told else [])
