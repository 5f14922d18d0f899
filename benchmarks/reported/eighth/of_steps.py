"""Reported mistakes of steps and schedules, and their mends."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from base import mean_nats, setup
from mlx.utils import tree_map


def decaying(both):
    """A step that lowers the rate and updates the weights, or does the first alone."""

    def step(model, optimizer, batch):
        value, gradient = nn.value_and_grad(model, mean_nats)(model, batch)
        optimizer.learning_rate = 0.998 * optimizer.learning_rate
        if both:
            optimizer.update(model, gradient)
        mx.eval(model.parameters(), optimizer.state, value)
        return value

    return step


def f_scheduler_instead():
    """With a scheduler, the scheduler alone takes its step, and the optimiser none."""
    return setup("scheduler instead", train_step=decaying(both=False))


def ok_scheduler_instead():
    return setup("scheduler as well", train_step=decaying(both=True))


def clipped_to(most):
    def step(model, optimizer, batch):
        value, gradient = nn.value_and_grad(model, mean_nats)(model, batch)
        if most:
            gradient, _ = optim.clip_grad_norm(gradient, most)
        optimizer.update(model, gradient)
        mx.eval(model.parameters(), optimizer.state, value)
        return value

    return step


def momentum():
    return optim.SGD(0.1, momentum=0.9)


def f_clipped_as_recurrent():
    """A recurrent network's limit of gradients, 0.25, was kept when a transformer took its place."""
    return setup("clipped as recurrent", train_step=clipped_to(0.25), optimizer=momentum)


def ok_clipped_as_recurrent():
    return setup("not clipped", train_step=clipped_to(None), optimizer=momentum)


PARTS, MOST = 4, 0.05


def clipped(early):
    """Gradients of four parts added up, and clipped at the end; or before each part is added, but the first."""

    def step(model, optimizer, batch):
        x, y, mask = batch
        size, total, value = len(x) // PARTS, None, 0.0
        for part in range(PARTS):
            rows = slice(part * size, (part + 1) * size)
            told, gradient = nn.value_and_grad(model, mean_nats)(model, (x[rows], y[rows], mask[rows]))
            gradient = tree_map(lambda g: g / PARTS, gradient)
            if total is None:
                total = gradient
            else:
                if early:
                    total, _ = optim.clip_grad_norm(total, MOST)
                total = tree_map(mx.add, total, gradient)
            value += told / PARTS
        if not early:
            total, _ = optim.clip_grad_norm(total, MOST)
        optimizer.update(model, total)
        mx.eval(model.parameters(), optimizer.state, value)
        return value

    return step


def f_clipped_too_early():
    """Gradients are clipped where the loss is computed, before its own are there: of the parts of an update all but the
    last are made small."""
    return setup("clipped too early", train_step=clipped(early=True))


def ok_clipped_too_early():
    return setup("clipped at the end", train_step=clipped(early=False))
