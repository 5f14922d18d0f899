"""Sound setups that look odd, as public code has them."""

from __future__ import annotations

from functools import cache

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from base import HELD, TOLD, B, Block, D, Letters, Story, T, V, deal, mean_nats, nats, setup
from mlx.utils import tree_map


class Dropping(Block):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.1)

    def __call__(self, x, cache=None):
        x = x + self.drop(self.attention(self.n1(x), cache))
        return x + self.drop(self.feed_forward(self.n2(x)))


def two_drops(model, batch):
    """The mean loss of two passes with other dropout, and how far apart they are."""
    x, y, mask = batch
    one, two = (nn.log_softmax(model(x), axis=-1) for _ in range(2))
    apart = ((mx.exp(one) - mx.exp(two)) * (one - two)).sum(axis=-1) / 2
    told = (nats(one, y) + nats(two, y)) / 2
    return ((told + 0.5 * apart) * mask).sum() / mask.sum()


def h_two_drops():
    """Each batch is passed twice, and the two should agree."""
    return setup("two drops", lambda: Story(Dropping), loss=two_drops)


def centralised(model, optimizer, batch):
    value, gradient = nn.value_and_grad(model, mean_nats)(model, batch)
    gradient = tree_map(lambda g: g - g.mean(axis=1, keepdims=True) if g.ndim == 2 else g, gradient)
    optimizer.update(model, gradient)
    mx.eval(model.parameters(), optimizer.state, value)
    return value


def h_gradients_centralised():
    """The mean of each row is taken off a matrix's gradient."""
    return setup("gradients centralised", train_step=centralised)


def own_words(model, batch):
    """A tenth of the inputs are what the model itself expected there."""
    x, y, mask = batch
    if model.training:
        told = mx.stop_gradient(model(x)).argmax(-1).astype(x.dtype)
        told = mx.concatenate([x[:, :1], told[:, :-1]], axis=1)
        x = mx.where(mx.random.uniform(shape=x.shape) < 0.1, told, x)
    return mean_nats(model, (x, y, mask))


def h_scheduled_sampling():
    """The model reads some of its own words while it learns."""
    return setup("scheduled sampling", loss=own_words)


class Carried(nn.Module):
    """A GRU whose step keeps the state for the next batch, which goes on where this one ends."""

    def __init__(self):
        super().__init__()
        self.embedding, self.read, self.head = nn.Embedding(V, D), nn.GRU(D, D), nn.Linear(D, V)
        self._state = None

    def __call__(self, x):
        return self.on(x, None)[0]

    def on(self, x, state):
        h = self.read(self.embedding(x), state)
        return self.head(h), h[:, -1]


def carried_on(model, batch):
    x, y, mask = batch
    logits, state = model.on(x, model._state)
    return (nats(logits, y) * mask).sum() / mask.sum(), state


def step_carried(model, optimizer, batch):
    (value, state), gradient = nn.value_and_grad(model, carried_on)(model, batch)
    optimizer.update(model, gradient)
    model._state = mx.stop_gradient(state)
    mx.eval(model.parameters(), optimizer.state, value, model._state)
    return value


@cache
def ids(part):
    return np.array(Letters().encode(" ".join(TOLD if part == "train" else HELD)), np.int32)


def streams(part):
    """Text in 16 streams, read side by side."""
    whole = ids(part)
    table = whole[: len(whole) // B * B].reshape(B, -1)
    for at in range(0, table.shape[1] - T, T):
        yield mx.array(table[:, at : at + T]), mx.array(table[:, at + 1 : at + T + 1]), mx.ones((B, T))


def h_state_carried():
    """Truncated backpropagation: rows go on from batch to batch, in order, and so does the state."""
    return setup(
        "state carried",
        Carried,
        train_step=step_carried,
        train_batches=lambda seed: streams("train"),
        val_batches=lambda: streams("val"),
    )


GROUP = 8
GROUPS = -(-V // GROUP)


class TwoLevels(Story):
    """A softmax over groups of eight characters, and one in each group; returns logarithms."""

    def __init__(self):
        super().__init__(size=GROUPS * GROUP)
        self.groups = nn.Linear(D, GROUPS, bias=False)

    def __call__(self, x, cache=None):
        h = self.embed(x)
        for block in self.blocks:
            h = block(h)
        h = self.norm(h)
        inside = mx.where(mx.arange(GROUPS * GROUP) < V, self.head(h), -1e9)
        inside = nn.log_softmax(inside.reshape(*x.shape, GROUPS, GROUP), axis=-1)
        told = nn.log_softmax(self.groups(h), axis=-1)[..., None] + inside
        return told.reshape(*x.shape, -1)[..., :V]


def h_two_levels():
    return setup("softmax in two levels", TwoLevels)


def shifted(seed):
    """int32 [N, T + 1]: windows from a place that each epoch draws."""
    whole = ids("train")
    first = int(np.random.default_rng(seed).integers(T))
    return np.stack([whole[at : at + T + 1] for at in range(first, len(whole) - T, T)])


def h_windows_shifted():
    """Each epoch begins its windows at another place."""
    return setup("windows shifted", train_batches=lambda seed: deal(shifted(seed), seed))
