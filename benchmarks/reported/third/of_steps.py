"""Reported mistakes of the step and the update, and their mends."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from base import B, adamw, mean_nats, setup, windows
from mlx.utils import tree_flatten, tree_map

EPOCH = len(windows("train")) // B


class NeverCleared:
    """Adds the gradients of each batch to what a model has of those before."""

    def __init__(self):
        self.kept = {}

    def step(self, model, optimizer, batch):
        value, new = nn.value_and_grad(model, mean_nats)(model, batch)
        _, old = self.kept.get(id(model), (None, None))
        gradient = new if old is None else tree_map(mx.add, old, new)
        self.kept[id(model)] = model, gradient  # held, so that its id stays its own
        optimizer.update(model, gradient)
        mx.eval(model.parameters(), optimizer.state, value, gradient)
        return value


def f_never_cleared():
    """Gradients are added to those of all batches before, and never cleared."""
    return setup("gradients never cleared", train_step=NeverCleared().step)


def f_decays_turned_round():
    """The optimiser takes 1 - beta for beta: the second moment forgets nearly all at every update."""
    return setup("decay turned round", optimizer=adamw(betas=[0.9, 0.001]))


def warmed(step_of_warmup):
    return lambda: optim.AdamW(
        lambda step: 2e-3 * mx.minimum((step_of_warmup(step) + 1) / 200, 1.0), bias_correction=True
    )


def f_warmup_each_epoch():
    """The warmup counts the updates of an epoch, which has fewer than it needs: the rate falls back to its start."""
    return setup("warmup by epoch", optimizer=warmed(lambda step: step % EPOCH))


def ok_warmup_each_epoch():
    return setup("warmup", optimizer=warmed(lambda step: step))


def orthogonalised(taken):
    """Muon for the matrices whose paths are ``taken``, AdamW for all else."""
    return lambda: optim.MultiOptimizer(
        [optim.Muon(0.02, weight_decay=0.0), adamw()()],
        [lambda path, weight: weight.ndim == 2 and taken(path)],
    )


def f_embedding_orthogonalised():
    """Embedding and output layer take orthogonalised steps with the hidden matrices."""
    return setup("embedding orthogonalised", optimizer=orthogonalised(lambda path: True))


def ok_embedding_orthogonalised():
    return setup(
        "hidden matrices orthogonalised", optimizer=orthogonalised(lambda path: path.startswith("blocks"))
    )


def decayed(wanted):
    """Decay of 0.1 for the weights of ``wanted`` dimensions."""
    return lambda: optim.MultiOptimizer(
        [adamw(weight_decay=0.1)(), adamw(weight_decay=0.0)()],
        [lambda path, weight: weight.ndim == wanted],
    )


def f_decay_of_norms():
    """The rule that takes norms and biases out of the decay is turned round: they alone decay."""
    return setup("norms decay", optimizer=decayed(1))


def ok_decay_of_norms():
    return setup("matrices decay", optimizer=decayed(2))


def clipped(limit):
    def step(model, optimizer, batch):
        value, gradient = nn.value_and_grad(model, mean_nats)(model, batch)
        norm = mx.sqrt(sum((g * g).sum() for _, g in tree_flatten(gradient)))
        factor = mx.minimum(limit / (norm + 1e-6), 1.0)
        optimizer.update(model, tree_map(lambda g: factor * g, gradient))
        mx.eval(model.parameters(), optimizer.state, value)
        return value

    return step


def f_clipped_below_nought():
    """-1 stands for "no limit", and is taken for one: the factor is negative, and turns every gradient round."""
    return setup("limit of -1", train_step=clipped(-1.0))


def ok_clipped_below_nought():
    return setup("limit of 1", train_step=clipped(1.0))
