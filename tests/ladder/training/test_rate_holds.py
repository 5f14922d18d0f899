"""A rate that the step lowers by hand: told, and held by an exchange."""

from __future__ import annotations

import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from tiny import Tiny, batches, judged, subject

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.exchange.inside_step import for_step


class Falling(optim.AdamW):
    """Multiplies its rate after each update."""

    def __init__(self, by):
        super().__init__(1e-2, bias_correction=True)
        self.by = by


def step(model, optimizer, batch):
    loss, gradients = nn.value_and_grad(
        model, lambda m: nn.losses.cross_entropy(m(batch.inputs), batch.targets).mean()
    )(model)
    optimizer.update(model, gradients)
    optimizer.learning_rate = optimizer.learning_rate * optimizer.by
    return loss


@pytest.mark.parametrize(
    ("by", "updates", "said"),
    [(0.97, None, [("schedule-out-of-step", "warning")]), (0.97, 120, []), (1.0, None, [])],
)
def test_a_rate_that_is_lowered_by_hand_while_the_loss_falls_is_a_warning(by, updates, said):
    setup = subject(optimizer=lambda: Falling(by), train_step=step, updates=updates)
    assert judged("the rate holds while the loss falls", Bench(setup)) == said


def setting(rate):
    """A step that sets the rate before its update, and counts its calls beside the optimiser's updates."""
    calls = []

    def sets(model, optimizer, batch):
        optimizer.learning_rate = rate(optimizer, len(calls))
        calls.append(batch)
        loss, gradients = nn.value_and_grad(
            model, lambda m: nn.losses.cross_entropy(m(batch.inputs), batch.targets).mean()
        )(model)
        optimizer.update(model, gradients)
        return loss

    return sets


def left(update, updates=150):
    return max(1 - int(update) / updates, 0.0)


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        (lambda o, calls: o.learning_rate * left(o.step), [("schedule-out-of-step", "error")]),
        (lambda o, calls: 1e-2 * left(o.step), []),
        (lambda o, calls: 1e-2 * min(int(o.step) / 900, 1.0), []),
        (lambda o, calls: 1e-2 * left(calls, 60), []),
    ],
    ids=["of the last rate", "of the first rate", "warming up", "by calls"],
)
def test_shares_that_are_taken_of_the_last_rate_end_long_before_a_stated_run(rate, said):
    setup = subject(
        optimizer=lambda: optim.AdamW(1e-2, bias_correction=True), train_step=setting(rate), updates=150
    )
    assert judged("a rate that the step sets lasts", Bench(setup)) == said


def test_a_rate_that_the_step_lowers_can_be_held():
    setup = subject(optimizer=lambda: Falling(0.5), train_step=step)
    bench = Bench(setup)
    names = [change.name for change in for_step(bench)]
    change = next(c for c in for_step(bench, lowered=True) if c.name == "the rate constant at its peak")
    assert change.name not in names
    model, optimizer = Tiny(), setup.optimizer()
    change.optimizer(optimizer)
    moved = []
    for batch in batches(0, count=4):
        before = np.array(model.head.weight)
        step(model, optimizer, batch)
        moved.append(float(np.abs(np.array(model.head.weight) - before).max()))
    assert min(moved) > 0.5 * max(moved)  # where each would be half of the one before
