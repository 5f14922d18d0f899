"""Optimisers and training steps that are sound, and unlike most; and steps that return no loss."""

from __future__ import annotations

from functools import partial

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
import tiny
from mlx.utils import tree_flatten, tree_map

from mlxstories.batch import Batch
from mlxstories.ladder import diagnose
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.arrays import masked_mean
from mlxstories.ladder.bench.samples import probe_batch
from mlxstories.ladder.bench.step.decay import penalty, undecayed_run, weight_decay
from mlxstories.ladder.bench.step.optimizers import intercepted, read_schedule
from mlxstories.ladder.bench.step.plan import first_negative, part_rates
from mlxstories.ladder.bench.step.received_gradient import own_and_received
from mlxstories.ladder.exchange.training import own_optimizer

RUNGS = ["minimal", "sweep"]
TABLE = [1e-2 * min(1, (update + 1) / 5) for update in range(2000)]


class OwnNames(optim.Optimizer):
    """Adam, its constants under names of its own."""

    def __init__(self, rate):
        super().__init__()
        self._maybe_schedule("learning_rate", rate)
        self.bias_correction, self.beta1, self.beta2 = False, 0.9, 0.95

    def init_single(self, parameter, state):
        state["mean"] = state["square"] = mx.zeros_like(parameter)

    def apply_single(self, gradient, parameter, state):
        state["mean"] = self.beta1 * state["mean"] + (1 - self.beta1) * gradient
        state["square"] = self.beta2 * state["square"] + (1 - self.beta2) * gradient**2
        return parameter - self.learning_rate * state["mean"] / (mx.sqrt(state["square"]) + 1e-8)


class OwnAdam(OwnNames):
    """Taken for an Adam by its name."""


class Bounded(optim.AdamW):
    """Takes a bound beside the gradients."""

    def apply_gradients(self, gradients, parameters, bound=None):
        return super().apply_gradients(optim.clip_grad_norm(gradients, bound)[0], parameters)

    def update(self, model, gradients):
        model.update(self.apply_gradients(gradients, model, bound=1.0))


def corrected(rate=1e-2):
    return optim.AdamW(rate, bias_correction=True)


def adam_and_sgd():
    return optim.MultiOptimizer([corrected(), optim.SGD(0.3)], [lambda name, array: array.ndim > 1])


def step(model, optimizer, batch):
    loss, gradients = nn.value_and_grad(model, masked_mean)(model, batch)
    optimizer.update(model, gradients)
    return loss


def compiled():
    """A step that is compiled for each pair of a model and an optimiser."""
    made = {}

    def make(model, optimizer):
        optimizer.init(model.trainable_parameters())
        state = [model.state, optimizer.state]

        @partial(mx.compile, inputs=state, outputs=state)
        def run(*arrays):
            return step(model, optimizer, Batch(*arrays))

        return run, model, optimizer

    def call(model, optimizer, batch):
        key = id(model), id(optimizer)
        if key not in made:
            made[key] = make(model, optimizer)
        return made[key][0](batch.inputs, batch.targets, batch.mask)

    return call


def collecting(number):
    """A step that updates at every so many calls, with the mean of their gradients."""
    kept = []

    def call(model, optimizer, batch):
        loss, gradients = nn.value_and_grad(model, masked_mean)(model, batch)
        kept.append(gradients)
        if len(kept) == number:
            optimizer.update(model, tree_map(lambda *each: sum(each) / number, *kept))
            kept.clear()
        return loss

    return call


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: OwnAdam(1e-2),
        lambda: Bounded(1e-2, bias_correction=True),
        lambda: optim.Adamax(1e-2),
        lambda: corrected(lambda update: mx.array(TABLE[int(update)])),
        adam_and_sgd,
        lambda: optim.MultiOptimizer([adam_and_sgd(), corrected()], [lambda name, array: "head" in name]),
    ],
    ids=["own names", "further argument", "adamax", "table of rates", "adam and sgd", "nested"],
)
def test_an_unusual_optimizer_is_sound(optimizer):
    subject = tiny.subject(optimizer=optimizer, loss=masked_mean, train_step=step)
    assert diagnose(subject, rungs=RUNGS).findings == []


@pytest.mark.parametrize(
    "optimizer",
    [adam_and_sgd, lambda: optim.SGD(0.3, momentum=0.9, dampening=0.5)],
    ids=["adam and sgd", "dampened"],
)
def test_the_gradient_of_a_compiled_step_is_read(optimizer):
    bench = Bench(tiny.subject(optimizer=optimizer, loss=masked_mean, train_step=compiled()))
    own, received = own_and_received(bench, probe_batch(bench, 0))
    assert received.keys() == own.keys()
    for name, gradient in own.items():
        assert mx.allclose(received[name], gradient, rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize(
    ("made", "told"),
    [(lambda loss: None, "nothing"), (lambda loss: {"loss": loss}, "a dict"), (lambda loss: (), "a tuple")],
    ids=["none", "dict", "empty"],
)
def test_a_step_without_a_loss_is_told(made, told):
    found = diagnose(tiny.subject(train_step=lambda *given: made(step(*given))), rungs=["minimal"]).findings
    assert [f.code for f in found] == ["subject-error"]
    assert found[0].message == f"train_step returned {told}, not its loss"


@pytest.mark.parametrize(
    "made",
    [lambda loss: loss.item(), lambda loss: (loss, 64), lambda loss: ((loss, 64), {}), np.array],
    ids=["number", "pair", "nested", "numpy"],
)
def test_a_loss_in_another_form_is_one(made):
    bench = Bench(tiny.subject(train_step=lambda *given: made(step(*given))))
    assert np.isfinite(bench.step(bench.model(), bench.optimizer(), probe_batch(bench, 0)))


def test_what_stood_in_the_way_of_gradients_stays_there():
    optimizer, own = corrected(), lambda gradients, parameters: parameters
    optimizer.apply_gradients = own
    with (
        intercepted(optimizer, lambda gradients: gradients),
        intercepted(optimizer, lambda gradients: gradients),
    ):
        pass
    assert optimizer.apply_gradients is own


@pytest.mark.parametrize("number", [2, 3])
def test_a_step_that_collects_gradients_is_sound(number):
    subject = tiny.subject(optimizer=corrected, train_step=collecting(number))
    assert [f for f in diagnose(subject, rungs=["init", "minimal"]).findings if f.severity == "error"] == []


def test_parts_within_parts_are_put_back():
    made = optim.MultiOptimizer([adam_and_sgd(), corrected()], [lambda name, array: "head" in name])
    bench = Bench(tiny.subject(optimizer=lambda: made, train_step=step))
    bench.step(bench.model(), bench.optimizer(), probe_batch(bench, 0))
    assert int(bench.optimizer().optimizers[0].optimizers[0].step) == 0


def test_a_table_of_rates_ends_with_the_run():
    curve = read_schedule(corrected(lambda update: mx.array(TABLE[int(update)])))
    assert (curve.peak, curve.end) == (pytest.approx(1e-2), len(TABLE))
    short = tiny.subject(
        optimizer=lambda: corrected(lambda update: mx.array(TABLE[:4][int(update)])), updates=9
    )
    bench = Bench(short)
    assert first_negative(bench, part_rates(bench)[0]) is None


class Frozen(tiny.Tiny):
    """Its embedding is frozen, and a table of whole numbers is in a public attribute."""

    def __init__(self):
        super().__init__()
        self.embed.freeze()
        self.places = mx.arange(8)

    def __call__(self, tokens):
        return super().__call__(tokens + 0 * mx.stop_gradient(self.places[:1]))


def keeping(model, optimizer, batch):
    """Trains the weights, not the table."""
    places = model.places
    loss = step(model, optimizer, batch)
    model.places = places
    return loss


def test_decay_is_taken_out_of_what_is_trained_alone():
    bench = Bench(
        tiny.subject(
            model=Frozen,
            optimizer=lambda: optim.AdamW(1e-2, bias_correction=True, weight_decay=5),
            train_step=keeping,
        )
    )
    kept = dict(tree_flatten(bench.model().parameters()))
    after = dict(tree_flatten(undecayed_run(bench).model.parameters()))
    assert mx.array_equal(after["embed.weight"], kept["embed.weight"])
    assert after["places"].dtype == mx.int32


def test_decay_is_held_against_the_rate_of_its_own_update():
    warmup = optim.linear_schedule(1e-3, 1e-2, 8)
    bench = Bench(
        tiny.subject(optimizer=lambda: optim.AdamW(warmup, weight_decay=30), train_step=collecting(2))
    )
    found = weight_decay(bench)
    assert found.follows_rate and found.share == pytest.approx(0.3, rel=0.1)


def test_a_penalty_is_sought_beside_a_table():
    assert penalty(Bench(tiny.subject(model=Frozen, loss=masked_mean))).size == pytest.approx(0, abs=1e-5)


def test_a_warmup_is_shortened_for_the_exchange_alone():
    warmup = optim.linear_schedule(0, 1e-2, 5000)
    made = corrected(warmup)
    bench = Bench(tiny.subject(optimizer=lambda: made))
    with bench.protected():
        assert own_optimizer(bench)._schedulers["learning_rate"] is not warmup
        assert bench.optimizer()._schedulers["learning_rate"] is warmup
        own_optimizer(bench)
    assert made._schedulers["learning_rate"] is warmup
