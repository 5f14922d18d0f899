"""Reported mistakes of steps and schedules, and their mends."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from base import evaluate, mean_nats, setup
from mlx.utils import tree_map

PEAK, UPDATES = 2e-3, 150
WARMUP, STABLE, DECAY = 30, 90, 30


def in_three_pieces(decay_begins):
    """Up, level, and down to 0."""
    pieces = [
        optim.linear_schedule(0.0, PEAK, WARMUP),
        lambda step: mx.array(PEAK),
        optim.linear_schedule(PEAK, 0.0, DECAY),
    ]
    rate = optim.join_schedules(pieces, [WARMUP, decay_begins])
    return lambda: optim.AdamW(rate, bias_correction=True)


def f_decay_forgets_warmup():
    """The level piece is counted from the start, not from the end of the warmup: the rate is 0 for the last fifth."""
    return setup("decay forgets warmup", optimizer=in_three_pieces(STABLE), updates=UPDATES)


def ok_decay_forgets_warmup():
    return setup("decay after warmup", optimizer=in_three_pieces(WARMUP + STABLE), updates=UPDATES)


def rex(step):
    left = mx.maximum(1 - step / UPDATES, 0.0)
    return left / (0.5 + 0.5 * left)


def by_rex(copied):
    """A step that sets the rate to a share of the first one, or of what it finds."""

    def step(model, optimizer, batch):
        base = PEAK if copied else optimizer.learning_rate
        optimizer.learning_rate = base * rex(optimizer.step)
        value, gradient = nn.value_and_grad(model, mean_nats)(model, batch)
        optimizer.update(model, gradient)
        mx.eval(model.parameters(), optimizer.state, value)
        return value

    return step


def f_base_is_the_rate():
    """The schedule's first rate is no copy, but the rate itself: each share is taken of the last one."""
    return setup("base is the rate", train_step=by_rex(copied=False), updates=UPDATES)


def ok_base_is_the_rate():
    return setup("base is copied", train_step=by_rex(copied=True), updates=UPDATES)


def up_and_down(warmup):
    """A line up, and a cosine down over what is left of the run."""
    down = optim.cosine_decay(PEAK, max(UPDATES - warmup, 1))
    rate = optim.join_schedules([optim.linear_schedule(0.0, PEAK, warmup), down], [warmup])
    return lambda: optim.AdamW(rate, bias_correction=True)


def f_always_warming_up():
    """The warmup is as long as the run: the cosine never begins."""
    return setup("always warming up", optimizer=up_and_down(UPDATES), updates=UPDATES)


def ok_always_warming_up():
    return setup("warms up and decays", optimizer=up_and_down(UPDATES // 10), updates=UPDATES)


PARTS = 8


def in_parts(share):
    """A step that takes a batch in parts, and adds up their losses and gradients, each times ``share``."""

    def step(model, optimizer, batch):
        size = len(batch[0]) // PARTS
        told, total = 0.0, None
        for at in range(0, size * PARTS, size):
            part = tuple(array[at : at + size] for array in batch)
            value, gradient = nn.value_and_grad(model, mean_nats)(model, part)
            gradient = tree_map(lambda g: g * share, gradient)
            total = tree_map(mx.add, total, gradient) if total else gradient
            told = told + value * share
        optimizer.update(model, total)
        mx.eval(model.parameters(), optimizer.state, told)
        return told

    return step


def momentum():
    return optim.SGD(0.1, momentum=0.9)


def f_parts_added_up():
    """Losses and gradients of accumulated parts are added up, and not divided by their number; SGD follows them."""
    return setup("parts added up", train_step=in_parts(1.0), optimizer=momentum)


def ok_parts_added_up():
    return setup("mean of parts", train_step=in_parts(1 / PARTS), optimizer=momentum)


def f_losses_left_over():
    """Validation and training add their losses to one buffer, and validation does not clear it: the next loss of
    training that is told has the last of validation in it."""
    buffer = {"losses": 0.0}

    def step(model, optimizer, batch):
        value, gradient = nn.value_and_grad(model, mean_nats)(model, batch)
        optimizer.update(model, gradient)
        mx.eval(model.parameters(), optimizer.state, value)
        told, buffer["losses"] = buffer["losses"] + value, 0.0
        return told

    def validate(model, batches):
        rows = list(batches)
        model.eval()
        buffer["losses"] += mean_nats(model, rows[-1]).item()
        model.train()
        return evaluate(model, rows)

    return setup("losses left over", train_step=step, evaluate=validate)
