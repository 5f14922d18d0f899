"""What validating and decoding leave behind in weights, modes, counts, random numbers and the optimiser."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_map
from tiny import B, T, Tiny, V, ask, judged, nats, told

from mlxstories.batch import Batch

STATE = "validating and decoding change nothing"


class Dropping(Tiny):
    def __init__(self, dropout: float = 0.2):
        super().__init__()
        self.drop = nn.Dropout(dropout)

    def __call__(self, tokens):
        return super().__call__(tokens) + self.drop(mx.ones(V))


def sharing(cleared):
    """A step and a validation that add to one sum of losses."""
    kept = {"sum": 0.0}

    def step(model, optimizer, batch):
        loss, gradients = nn.value_and_grad(model, nats)(model, batch)
        optimizer.update(model, gradients)
        told, kept["sum"] = kept["sum"] + loss, 0.0
        return told

    def evaluate(model, given):
        values = [float(nats(model, batch)) for batch in given]
        kept["sum"] += 0.0 if cleared else sum(values)
        return {"loss": sum(values) / len(values)}

    return {"train_step": step, "evaluate": evaluate}


def averaging():
    """A step that tells the mean of its losses since validation, which begins anew."""
    losses = []

    def step(model, optimizer, batch):
        loss, gradients = nn.value_and_grad(model, nats)(model, batch)
        optimizer.update(model, gradients)
        losses.append(float(loss))
        return mx.array(sum(losses) / len(losses))

    def evaluate(model, given):
        losses.clear()
        values = [float(nats(model, batch)) for batch in given]
        return {"loss": sum(values) / len(values)}

    return {"train_step": step, "evaluate": evaluate}


class Forgetful(Dropping):
    """Evaluation mode sets its dropout to 0 for good."""

    def __call__(self, tokens):
        if not self.training:
            self.drop._p_1 = 1.0
        return super().__call__(tokens)


def drawn_globally(seed):
    np.random.seed(seed)
    for _ in range(6):
        rows = np.random.randint(1, 3, (B, T + 1)).cumsum(1) % V
        yield Batch(mx.array(rows[:, :-1]), mx.array(rows[:, 1:]), mx.ones((B, T)))


def evaluating(before=lambda model: None):
    def evaluate(model, given):
        before(model)
        model.eval()
        values = [float(nats(model, batch)) for batch in given]
        return {"loss": sum(values) / len(values)}

    return evaluate


@pytest.mark.parametrize(
    "fields",
    [
        {"evaluate": evaluating(lambda m: m.update(tree_map(mx.zeros_like, m.parameters())))},
        {"evaluate": evaluating(lambda m: np.random.seed(0)), "train_batches": drawn_globally},
    ],
)
def test_what_training_goes_on_with_is_named(fields):
    assert told(ask(STATE, loss=nats, **fields)) == ("failed", [("evaluation-changes-state", "error")])


@pytest.mark.parametrize(
    "fields",
    [
        {"evaluate": evaluating(), "model": Dropping},
        {"evaluate": evaluating(lambda m: np.random.seed(0))},
    ],
)
def test_a_mode_or_random_numbers_that_nobody_draws_are_no_matter(fields):
    assert told(ask(STATE, loss=nats, **fields)) == ("passed", [])


def test_dropout_that_evaluation_mode_removes_for_good_is_a_warning():
    found = told(ask(STATE, loss=nats, model=Forgetful))
    assert found == ("passed", [("evaluation-changes-state", "warning")])


def touching(touch):
    """A subject that hands out one optimiser, which its validation knows."""
    optimizer = optim.Adam(1e-3)

    def evaluate(model, given):
        touch(optimizer, model)
        return {"loss": float(sum(nats(model, batch) for batch in given))}

    return {"loss": nats, "optimizer": lambda: optimizer, "evaluate": evaluate}


def slower(optimizer, model):
    optimizer.learning_rate = optimizer.learning_rate * 0.5


@pytest.mark.parametrize(
    ("touch", "accused"),
    [
        (lambda optimizer, model: optimizer.init(model.trainable_parameters()), False),
        (lambda optimizer, model: optimizer.state.update(step=mx.array(0, mx.uint64)), True),
        (lambda optimizer, model: optimizer.update(model, model.parameters()), True),
        (slower, False),
        (lambda optimizer, model: None, False),
    ],
)
def test_validation_leaves_the_optimiser_alone(touch, accused):
    found = judged(STATE, **touching(touch))
    assert (("evaluation-changes-state", "warning") in found) is accused


class Counted(Tiny):
    """Counts on where it was last asked in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.at = 0

    def __call__(self, tokens):
        self.at += 0 if self.training else tokens.shape[1]
        return super().__call__((tokens + self.at) % V)


def test_a_count_that_training_goes_on_with_is_an_error():
    assert judged("validating and decoding change nothing", model=Counted)[0] == (
        "evaluation-changes-state",
        "error",
    )
    assert judged("validating and decoding change nothing") == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (sharing(cleared=False), ("failed", [("evaluation-changes-state", "error")])),
        (sharing(cleared=True), ("passed", [])),
        (averaging(), ("passed", [])),
        (sharing(cleared=True) | {"model": Dropping}, ("passed", [])),
    ],
)
def test_a_loss_that_validation_adds_to_is_told(fields, said):
    assert told(ask("validating and decoding leave the loss alone", loss=nats, **fields)) == said
