"""Reported mistakes of steps and schedules, and their mends."""

from __future__ import annotations

from functools import cache

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from base import TOLD, B, Letters, Story, T, deal, mean_nats, setup
from mlx.utils import tree_map

PEAK, UPDATES, FLOOR = 2e-3, 150, 0.1


def down_a_cosine(half):
    """A tenth of the peak at least, and down from it over so many updates; what follows goes up again."""

    def rate(step):
        return PEAK * mx.maximum(FLOOR, 0.5 * (1 + mx.cos(mx.array(mx.pi) * step / half)))

    return lambda: optim.AdamW(rate, bias_correction=True)


FEW = TOLD[:40]


@cache
def few_windows():
    """int32 [N, T + 1]: few stories in a row, cut up; 150 updates read them five times."""
    ids = np.array(Letters().encode(" ".join(FEW)), np.int32)
    return np.stack([ids[at : at + T + 1] for at in range(0, len(ids) - T, T)])


def on_few(name, half):
    return setup(
        name,
        optimizer=down_a_cosine(half),
        updates=UPDATES,
        train_batches=lambda seed: deal(few_windows(), seed),
        train_texts=FEW,
    )


def f_two_epochs_whatever():
    """The cosine is made for two epochs, however many there are: it comes down and goes up all through the run."""
    return on_few("two epochs whatever", 2 * (len(few_windows()) // B))


def ok_two_epochs_whatever():
    return on_few("down over the run", UPDATES)


PARTS = 8


def momentum():
    return optim.SGD(0.1, momentum=0.9)


def in_parts(times):
    """A step that takes a batch in parts, and divides the sum of their gradients by their number so many times."""

    def step(model, optimizer, batch):
        size = len(batch[0]) // PARTS
        told, total = 0.0, None
        for at in range(0, size * PARTS, size):
            part = tuple(array[at : at + size] for array in batch)
            value, gradient = nn.value_and_grad(model, mean_nats)(model, part)
            total = tree_map(mx.add, total, gradient) if total else gradient
            told = told + value / PARTS
        optimizer.update(model, tree_map(lambda g: g / PARTS**times, total))
        mx.eval(model.parameters(), optimizer.state, told)
        return told

    return step


def f_averaged_twice():
    """Who collects the gradients of the parts averages them, and who applies them does so again; SGD follows them."""
    return setup("averaged twice", train_step=in_parts(2), optimizer=momentum)


def ok_averaged_twice():
    return setup("averaged once", train_step=in_parts(1), optimizer=momentum)


def f_weights_drawn_anew():
    """The forward pass makes its weights anew, and the gradient at those is applied to the ones that are kept."""

    def step(model, optimizer, batch):
        fresh = Story()
        value, gradient = nn.value_and_grad(fresh, mean_nats)(fresh, batch)
        optimizer.update(model, gradient)
        mx.eval(model.parameters(), optimizer.state, value)
        return value

    return setup("weights drawn anew", train_step=step)
