"""Reported mistakes of steps and schedules, and their mends."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from base import mean_nats, nats, setup
from mlx.utils import tree_map

WARMUP = 60


def forgotten(model, optimizer, batch):
    """Of the groups of weights that the optimiser should be given, that of the output layer is not added."""
    value, gradient = nn.value_and_grad(model, mean_nats)(model, batch)
    optimizer.update(model, {name: gradient[name] for name in ("embedding", "blocks", "norm")})
    mx.eval(model.parameters(), optimizer.state, value)
    return value


def f_head_forgotten():
    """The optimiser is not given the output layer, which stays as it began."""
    return setup("head forgotten", train_step=forgotten)


def inverse_root(peak):
    """A rate that rises in a line to ``peak``, and falls with the root of the number of updates."""

    def rate(step):
        at = step + 1
        return peak * WARMUP**0.5 * mx.minimum(at**-0.5, at * WARMUP**-1.5)

    return lambda: optim.AdamW(rate, bias_correction=True)


def f_peak_of_one():
    """The rate that was asked for is left out of the schedule: it rises to 1."""
    return setup("peak of one", optimizer=inverse_root(1.0))


def ok_peak_of_one():
    return setup("peak as asked for", optimizer=inverse_root(2e-3))


def by_gradient_descent(share):
    """A step that reports the mean over characters; its gradient is that of the mean over rows of the sum over
    characters, times ``share``."""

    def total(model, batch):
        x, y, mask = batch
        return (nats(model(x), y) * mask).sum() / len(x)

    def step(model, optimizer, batch):
        value, gradient = nn.value_and_grad(model, total)(model, batch)
        length = batch[0].shape[1]
        gradient = tree_map(lambda g: mx.clip(g * share(length), -5, 5), gradient)
        optimizer.update(model, gradient)
        mx.eval(model.parameters(), optimizer.state, value)
        return value / length

    return step


def momentum():
    return optim.SGD(0.1, momentum=0.9)


def f_summed_over_time():
    """The loss that is told is divided by the length of a row, and its gradient is not."""
    step = by_gradient_descent(lambda length: 1)
    return setup("summed over time", train_step=step, optimizer=momentum)


def ok_summed_over_time():
    step = by_gradient_descent(lambda length: 1 / length)
    return setup("mean over time", train_step=step, optimizer=momentum)
