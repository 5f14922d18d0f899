"""What reaches the optimiser, and the order of a batch's rows."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import pytest
from mlx.utils import tree_map
from tiny import accumulating, ask, nats, stepping, told

from mlxstories.batch import Batch

ORDER = "the order of rows makes no difference to a step"


def row_of(batch, row):
    return Batch(*(array[row : row + 1] for array in batch))


def in_parts(clip):
    """Rows one by one, their gradients added up; ``clip`` gets the sum so far, a new gradient and how many are left."""

    def step(model, optimizer, batch):
        rows, total, value = len(batch.inputs), None, 0.0
        for row in range(rows):
            loss, gradient = nn.value_and_grad(model, nats)(model, row_of(batch, row))
            total = clip(total, gradient, rows - row - 1)
            value += loss / rows
        optimizer.update(model, total)
        return value

    return step


def short(gradient):
    return optim.clip_grad_norm(gradient, 0.01)[0]


def add(total, gradient):
    return gradient if total is None else tree_map(mx.add, total, gradient)


def before(total, gradient, left):
    return add(total and short(total), gradient)


def after(total, gradient, left):
    return short(add(total, gradient))


def each(total, gradient, left):
    return add(total, short(gradient))


def at_the_end(total, gradient, left):
    return add(total, gradient) if left else short(add(total, gradient))


@pytest.mark.parametrize("clip", [before, after])
def test_a_sum_clipped_on_its_way_is_named(clip):
    assert told(ask(ORDER, train_step=in_parts(clip))) == ("failed", [("gradient-mismatch", "error")])


@pytest.mark.parametrize("step", [stepping(), accumulating(int), in_parts(each), in_parts(at_the_end)])
def test_rows_that_are_clipped_alike_are_sound(step):
    assert told(ask(ORDER, train_step=step)) == ("passed", [])


def first_rows_more(model, batch):
    weights = mx.arange(len(batch.inputs), 0, -1.0)[:, None]
    told = nn.losses.cross_entropy(model(batch.inputs), batch.targets, reduction="none")
    return (told * weights).sum() / (weights * mx.ones_like(told)).sum()


def weighing(model, optimizer, batch):
    value, gradient = nn.value_and_grad(model, first_rows_more)(model, batch)
    optimizer.update(model, gradient)
    return value


def test_a_loss_that_weighs_rows_by_their_place_is_meant():
    assert told(ask(ORDER, train_step=weighing, loss=first_rows_more)) == ("passed", [])


def one_update_a_row(model, optimizer, batch):
    for row in range(len(batch.inputs)):
        value, gradient = nn.value_and_grad(model, nats)(model, row_of(batch, row))
        optimizer.update(model, gradient)
    return value


def test_several_updates_a_call_are_not_judged():
    assert told(ask(ORDER, train_step=one_update_a_row))[0] == "skipped"
