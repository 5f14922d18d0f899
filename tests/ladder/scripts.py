"""The training scripts, as text, that the tests of capture run and change."""

from __future__ import annotations

import numpy as np
from mlx.utils import tree_flatten

T, B = 8, 4  # of MODEL
MODEL = """
import json, os, random, sys
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_map

V, T, B = 12, 8, 4


class Model(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.embed, self.out = nn.Embedding(V, 16), nn.Linear(16, V)
        self.drop = nn.Dropout(dropout)

    def __call__(self, ids):
        x = self.embed(ids)
        before = mx.pad(x, [(0, 0), (1, 0), (0, 0)])[:, :-1]
        return self.out(self.drop(x + mx.tanh(before)))


rng = np.random.default_rng(0)


def rows():
    return mx.array(rng.integers(1, V, (B, T + 1)))


def loss_fn(model, x, y):
    return nn.losses.cross_entropy(model(x), y, reduction="mean")


mx.random.seed(0)
model = Model()
"""
LOOP = """
optimizer = optim.AdamW(1e-2, bias_correction=True)
step = nn.value_and_grad(model, loss_fn)
for i in range(500):
    data = rows()
    loss, grads = step(model, data[:, :-1], data[:, 1:])
    optimizer.update(model, grads)
    mx.eval(model.state, optimizer.state)
"""


def line_of(text, part):
    return next(i for i, line in enumerate(text.splitlines(), 1) if part in line)


def flat(model):
    return {name: np.array(array) for name, array in tree_flatten(model.parameters())}


STYLES = {
    "arguments": LOOP,
    "captured variables": """
optimizer = optim.SGD(1e-2)
for i in range(500):
    data = rows()
    x, y = data[:, :-1], data[:, 1:]
    def objective(m):
        return nn.losses.cross_entropy(m(x).reshape(-1, V), y.reshape(-1)).mean()
    loss, grads = nn.value_and_grad(model, objective)(model)
    optimizer.update(model, grads)
""",
    "tokens cut inside, by hand, with a count": """
def objective(tokens):
    logits, y = model(tokens[:, :-1]), tokens[:, 1:]
    nats = mx.logsumexp(logits, -1) - mx.take_along_axis(logits, y[..., None], -1)[..., 0]
    return nats.mean(), nats.size
optimizer = optim.Lion(1e-3)
step = nn.value_and_grad(model, objective)
for i in range(500):
    (loss, count), grads = step(rows())
    optimizer.update(model, grads)
""",
    "dicts, compiled": """
optimizer = optim.Adam(optim.cosine_decay(1e-2, 400), bias_correction=True)
state = [model.state, optimizer.state]
def objective(model, batch):
    nats = nn.losses.cross_entropy(model(batch["ids"]), batch["labels"])
    return (nats * batch["mask"]).sum() / batch["mask"].sum()
@mx.compile
def step(batch):
    loss, grads = nn.value_and_grad(model, objective)(model, batch)
    optimizer.update(model, grads)
    return loss
for i in range(500):
    data = rows()
    step({"ids": data[:, :-1], "labels": data[:, 1:], "mask": mx.ones((B, T))})
""",
    "a tree of parameters": """
def objective(params, x, y):
    model.update(params)
    return loss_fn(model, x, y)
optimizer = optim.AdamW(1e-2)
for i in range(500):
    data = rows()
    loss, grads = mx.value_and_grad(objective)(model.trainable_parameters(), data[:, :-1], data[:, 1:])
    model.update(optimizer.apply_gradients(grads, model.trainable_parameters()))
""",
    "gradients alone, updates by hand": """
def objective(params, x, y):
    model.update(params)
    return loss_fn(model, x, y)
for i in range(500):
    data = rows()
    grads = mx.grad(objective)(model.trainable_parameters(), data[:, :-1], data[:, 1:])
    model.update(tree_map(lambda p, g: p - 0.1 * g, model.trainable_parameters(), grads))
""",
}
