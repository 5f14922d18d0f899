"""Reported mistakes of steps, optimisers and schedules, and their mends."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from base import B, mean_nats, setup, windows

PARTS = 4


def skipping(model, optimizer, batch):
    """A batch in four parts, of which the last is computed."""
    x, y, mask = batch
    size = len(x) // PARTS
    for part in range(PARTS):
        if (part + 1) % PARTS:
            continue
        rows = slice(part * size, (part + 1) * size)
        value, gradient = nn.value_and_grad(model, mean_nats)(model, (x[rows], y[rows], mask[rows]))
        optimizer.update(model, gradient)
    mx.eval(model.parameters(), optimizer.state, value)
    return value


def f_parts_skipped():
    """Where an update has several parts, those that end in none are passed over, not added up."""
    return setup("parts skipped", train_step=skipping)


UPDATES, PEAK, RISE = 150, 4e-3, 0.3


def one_cycle(at):
    """From a 25th of the peak to the peak, and down to nothing, by cosines."""
    at = mx.minimum(at / UPDATES, 1.0)
    up, down = (1 - mx.cos(mx.pi * at / RISE)) / 2, (1 + mx.cos(mx.pi * (at - RISE) / (1 - RISE))) / 2
    return PEAK * mx.where(at < RISE, 0.04 + 0.96 * up, down)


def scheduled(every):
    return lambda: optim.AdamW(lambda step: one_cycle(step // every), bias_correction=True)


def f_cycle_by_epoch():
    """A cycle of as many moves as there are updates moves on with each epoch: the rate stays where it begins."""
    return setup("cycle by epoch", optimizer=scheduled(len(windows("train")) // B), updates=UPDATES)


def ok_cycle_by_epoch():
    return setup("cycle by update", optimizer=scheduled(1), updates=UPDATES)


class CountedByParameter(optim.AdamW):
    def apply_single(self, gradient, parameter, state):
        self.state["step"] = self.step + 1
        return super().apply_single(gradient, parameter, state)


def f_counted_by_parameter():
    """Adam counts a step for each parameter, not for each update, and corrects its moments by that."""
    return setup("counted by parameter", optimizer=lambda: CountedByParameter(2e-3, bias_correction=True))
