"""Reported mistakes of the loss, and their mends."""

from __future__ import annotations

from functools import cache

import mlx.core as mx
import mlx.nn as nn
from base import Block, D, FeedForward, Story, V, adamw, deal, mean_nats, nats, setup, step_of, windows

EXPERTS = 4


class Sparse(nn.Module):
    """Four experts, of which each token takes the likeliest, weighted with its probability."""

    def __init__(self):
        super().__init__()
        self.router = nn.Linear(D, EXPERTS, bias=False)
        self.experts = [FeedForward() for _ in range(EXPERTS)]
        self._seen = None

    def __call__(self, x):
        scores = self.router(x)
        p = mx.softmax(scores, axis=-1)
        taken = (p.argmax(-1)[..., None] == mx.arange(EXPERTS)).astype(p.dtype)
        self._seen = scores, p, taken
        weights = p * taken
        return sum(weights[..., i : i + 1] * expert(x) for i, expert in enumerate(self.experts))


class SparseBlock(Block):
    def __init__(self, **parts):
        super().__init__(**parts)
        self.feed_forward = Sparse()


def balanced(of):
    """Nats, and for each layer how unevenly experts are used, by the share that each takes of tokens and of what
    ``of`` chooses from (scores, probabilities)."""

    def loss(model, batch):
        total = mean_nats(model, batch)
        for block in model.blocks:
            *chosen, taken = block.feed_forward._seen
            share, mean = taken.mean((0, 1)), of(*chosen).mean((0, 1))
            total = total + 0.01 * EXPERTS * (share * mean).sum()
        return total

    return loss


def f_balance_of_scores():
    """The term of balance takes the router's scores for probabilities: it has no lower bound."""
    return setup(
        "balance of scores", lambda: Story(block=SparseBlock), loss=balanced(lambda scores, p: scores)
    )


def ok_balance_of_scores():
    return setup(
        "balance of probabilities", lambda: Story(block=SparseBlock), loss=balanced(lambda scores, p: p)
    )


class Biased(Story):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(D, V)


def bias_again(model, batch):
    """The logit of the target has the output's bias twice, the others once."""
    x, y, mask = batch
    return ((nats(model(x), y) - model.head.bias[y]) * mask).sum() / mask.sum()


def f_bias_again():
    """A fused loss adds the output's bias to the target's logit once more."""
    return setup("bias added again", Biased, loss=bias_again)


def ok_bias_again():
    return setup("bias added once", Biased)


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


def distilled(late):
    """Half the targets' nats, half the divergence from what the teacher says ``late`` places before."""

    def loss(model, batch):
        x, y, mask = batch
        logits, length = model(x), x.shape[1] - late
        told = teacher()(x)[:, :length]
        own, counts = nn.log_softmax(logits[:, late:], axis=-1), mask[:, late:]
        divergence = (mx.softmax(told, axis=-1) * (nn.log_softmax(told, axis=-1) - own)).sum(-1)
        hard = (nats(logits, y) * mask).sum() / mask.sum()
        return (hard + (divergence * counts).sum() / counts.sum()) / 2

    return loss


def f_taught_late():
    """The student's predictions are held against what the teacher said a place before: half of the loss asks for the
    token that was just read."""
    return setup("taught late", loss=distilled(1))


def ok_taught_late():
    return setup("taught in time", loss=distilled(0))


class Ahead(Story):
    """A second head tells the token after the next."""

    def __init__(self):
        super().__init__()
        self.ahead = nn.Linear(D, V, bias=False)

    def hidden(self, x, cache=None):
        h = self.embed(x)
        for i, block in enumerate(self.blocks):
            h = block(h, cache[i]) if cache else block(h)
        return self.norm(h)

    def __call__(self, x, cache=None):
        return self.head(self.hidden(x, cache))


def two_ahead(summed):
    """Mean nats of the next token, and 0.3 of those of the one after, as a mean or a sum."""

    def loss(model, batch):
        x, y, mask = batch
        h, later = model.hidden(x), mask[:, 1:]
        near = (nats(model.head(h), y) * mask).sum() / mask.sum()
        far = (nats(model.ahead(h)[:, :-1], y[:, 1:]) * later).sum()
        return near + 0.3 * (far if summed else far / later.sum())

    return loss


def f_ahead_summed():
    """What is asked of the token after the next is a sum over tokens, beside a mean: it outweighs it 200 times."""
    return setup("ahead summed", Ahead, loss=two_ahead(summed=True))


def ok_ahead_summed():
    return setup("ahead averaged", Ahead, loss=two_ahead(summed=False))
