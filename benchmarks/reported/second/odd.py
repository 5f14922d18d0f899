"""Sound setups that look odd, as public code has them."""

from __future__ import annotations

from functools import cache

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from base import (
    Attention,
    Block,
    D,
    FeedForward,
    Story,
    adamw,
    deal,
    evaluate,
    mean_nats,
    nats,
    on_sentences,
    setup,
    step_of,
    windows,
)
from mlx.utils import tree_map


class Behind(Block):
    """Norms behind the branches, as in the first transformers."""

    def __call__(self, x, cache=None):
        x = self.n1(x + self.attention(x, cache))
        return self.n2(x + self.feed_forward(x))


def h_normed_twice():
    """Norms behind the branches, and one more at the end, which norms what is normed."""
    return setup("normed twice", lambda: Story(block=Behind, norm=lambda: nn.LayerNorm(D)))


def mean_of_rows(model, batch):
    """Nats of the mean row, long or short."""
    x, y, mask = batch
    return ((nats(model(x), y) * mask).sum(1) / mask.sum(1)).mean()


def h_mean_of_rows():
    """Each row counts the same, whatever its length."""
    return on_sentences("mean of rows", loss=mean_of_rows)


def by_depth(rate=3e-3, decay=0.65):
    """A smaller rate for each layer below the last."""

    def within(start):
        return lambda path, _: path.startswith(start)

    starts = ["blocks.1", "blocks.0", "embedding"]
    rates = [rate * decay**i for i in range(1, 4)]
    return lambda: optim.MultiOptimizer(
        [adamw(r)() for r in [*rates, rate]], [within(start) for start in starts]
    )


def h_rate_by_depth():
    """The deeper a layer lies, the smaller its rate."""
    return setup("rates by depth", optimizer=by_depth())


class RowsDropped(Block):
    """In training a branch is left out for a tenth of the rows."""

    def kept(self, branch):
        if not self.training:
            return branch
        return branch * mx.random.bernoulli(0.9, (len(branch), 1, 1)) / 0.9

    def __call__(self, x, cache=None):
        x = x + self.kept(self.attention(self.n1(x), cache))
        return x + self.kept(self.feed_forward(self.n2(x)))


def h_branches_dropped_by_row():
    """Stochastic depth, drawn for each row."""
    return setup("branches dropped by row", lambda: Story(block=RowsDropped, layers=3))


class ScheduleFree(optim.Optimizer):
    """Adam in the schedule-free form: weights are y, between z, which is stepped, and x, the mean of all z."""

    def __init__(self, rate=3e-3, betas=(0.9, 0.99)):
        super().__init__()
        self.betas = betas
        self._maybe_schedule("learning_rate", rate)

    def init_single(self, parameter, state):
        state["v"], state["n"] = mx.zeros_like(parameter), mx.array(0.0)

    def apply_single(self, gradient, parameter, state):
        near, long = self.betas
        if "z" not in state:  # MLX makes the state from gradients, before any weight is seen
            state["z"] = state["x"] = parameter
        state["n"] = state["n"] + 1
        state["v"] = long * state["v"] + (1 - long) * gradient * gradient
        scale = mx.sqrt(state["v"] / (1 - long ** state["n"])) + 1e-8
        state["z"] = state["z"] - self.learning_rate * gradient / scale
        state["x"] = state["x"] + (state["z"] - state["x"]) / state["n"]
        return (1 - near) * state["z"] + near * state["x"]


class AtTheMean:
    """Validation at x, where training has gone through y."""

    def __init__(self):
        self.optimizers = {}

    def step(self, model, optimizer, batch):
        self.optimizers[id(model)] = model, optimizer
        return step_of(mean_nats)(model, optimizer, batch)

    def evaluate(self, model, batches):
        if id(model) not in self.optimizers:
            return evaluate(model, batches)
        own = tree_map(lambda a: a, model.parameters())
        state = self.optimizers[id(model)][1].state
        model.update(tree_map(lambda _, kept: kept["x"], own, state))
        try:
            return evaluate(model, batches)
        finally:
            model.update(own)


def h_schedule_free():
    """Schedule-free: weights are swapped for validation, and put back."""
    mean = AtTheMean()
    return setup("schedule-free", optimizer=ScheduleFree, train_step=mean.step, evaluate=mean.evaluate)


@cache
def teacher():
    """A model that was trained for a while, and stays as it is."""
    mx.random.seed(5)
    model, optimizer, step = Story(), adamw()(), step_of(mean_nats)
    for _, batch in zip(range(40), deal(windows("train"), 0), strict=False):
        step(model, optimizer, batch)
    model.freeze()
    model.eval()
    return model


def distilled(model, batch, share=0.5, warmth=2.0):
    """Half the targets' nats, half the divergence from a teacher's softened distribution."""
    x, y, mask = batch
    logits = model(x)
    soft = mx.softmax(teacher()(x) / warmth, axis=-1)
    own = nn.log_softmax(logits / warmth, axis=-1)
    divergence = (soft * (mx.log(soft + 1e-9) - own)).sum(-1) * warmth**2
    return ((share * nats(logits, y) + (1 - share) * divergence) * mask).sum() / mask.sum()


def h_distilled():
    """Distillation from a frozen teacher."""
    return setup("distilled", loss=distilled)


class Sparse(nn.Module):
    """Four experts, of which each token takes the likeliest, weighted with its probability."""

    def __init__(self):
        super().__init__()
        self.router = nn.Linear(D, 4, bias=False)
        self.experts = [FeedForward() for _ in range(4)]
        self._balance = mx.array(0.0)

    def __call__(self, x):
        p = mx.softmax(self.router(x), axis=-1)
        taken = (p.argmax(-1)[..., None] == mx.arange(4)).astype(p.dtype)
        self._balance = 4 * (p.mean((0, 1)) * taken.mean((0, 1))).sum()
        weights = p * taken
        return sum(weights[..., i : i + 1] * expert(x) for i, expert in enumerate(self.experts))


class SparseBlock(Block):
    def __init__(self, **parts):
        super().__init__(**parts)
        self.feed_forward = Sparse()


def balanced(model, batch):
    """Nats and a hundredth of each layer's balance of experts."""
    loss = mean_nats(model, batch)
    return loss + 0.01 * sum(block.feed_forward._balance for block in model.blocks)


def h_balanced_experts():
    """One expert a token, with a term in the loss that asks for their even use."""
    return setup("balanced experts", lambda: Story(block=SparseBlock), loss=balanced)


class Normalised(Attention):
    """Queries and keys of length one, and an output that begins at 0."""

    def __init__(self):
        super().__init__()
        self.o.weight = mx.zeros_like(self.o.weight)
        self.warmth = mx.array(12.0)

    def turned(self, q, k, cache):
        q, k = (a * mx.rsqrt((a * a).mean(-1, keepdims=True) + 1e-6) for a in super().turned(q, k, cache))
        return q * self.warmth / (D // len(q[0])) ** 0.5, k


class Squared(FeedForward):
    """The square of a rectifier, without biases; the output begins at 0."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(D, 4 * D, bias=False), nn.Linear(4 * D, D, bias=False)
        self.down.weight = mx.zeros_like(self.down.weight)

    def __call__(self, x):
        return self.down(nn.relu(self.up(x)) ** 2)


class SquaredBlock(Block):
    def __init__(self, **parts):
        super().__init__(attention=Normalised, norm=lambda: nn.RMSNorm(D))
        self.feed_forward = Squared()


class FromNothing(Story):
    """Every branch and the head begin at 0; logits are capped at 15."""

    def __init__(self):
        super().__init__(block=SquaredBlock)
        self.head.weight = mx.zeros_like(self.head.weight)

    def __call__(self, x, cache=None):
        return 15 * mx.tanh(super().__call__(x, cache) / 15)


def h_from_nothing():
    """Branches and head begin at 0, queries and keys are normed, logits capped."""
    return setup("from nothing", FromNothing)


def with_z(model, batch, weight=1e-3):
    """Nats and the square of the log of the softmax's denominator."""
    x, y, mask = batch
    logits = model(x)
    z = mx.logsumexp(logits, axis=-1)
    return ((nats(logits, y) + weight * z * z) * mask).sum() / mask.sum()


def h_z_loss():
    """A small term keeps the softmax's denominator near 1."""
    return setup("z-loss", loss=with_z)
