"""Reported mistakes inside of models, and their mends."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
from base import Attention, D, FeedForward, H, Story, setup, tell_cached


class Gated(nn.Module):
    """A layer that one half of what comes up gates, with the activation on the gate or on the product of both."""

    def __init__(self, activation, of_product=False):
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(D, 4 * D), nn.Linear(D, 4 * D), nn.Linear(4 * D, D)
        self.activation, self.of_product = activation, of_product

    def __call__(self, x):
        gate, up = self.gate(x), self.up(x)
        return self.down(self.activation(gate * up) if self.of_product else self.activation(gate) * up)


def gated(make, begin=None):
    """A model whose feed-forward layers are gated, with matrices that begin as told."""

    def model():
        story = Story()
        for block in story.blocks:
            block.feed_forward = make()
            for layer in (block.feed_forward.gate, block.feed_forward.up, block.feed_forward.down):
                layer.weight = begin(layer.weight.shape) if begin else layer.weight
                layer.bias = mx.zeros_like(layer.bias)
        return story

    return model


def f_all_three_at_nought():
    """All three matrices of a gated feed-forward layer begin at 0: none of them ever gets a gradient."""
    return setup("all three at nought", gated(lambda: Gated(nn.gelu_approx), mx.zeros))


def ok_all_three_at_nought():
    return setup("three drawn matrices", gated(lambda: Gated(nn.gelu_approx)))


def f_silu_of_product():
    """The activation of a gated layer is taken of the product, not of the gate."""
    return setup("silu of product", gated(lambda: Gated(nn.silu, of_product=True)))


def ok_silu_of_product():
    return setup("silu of gate", gated(lambda: Gated(nn.silu)))


class ByStream(Attention):
    def weights(self, scores):
        return mx.softmax(scores * H**-0.5, axis=-1)


def f_scaled_by_stream():
    """Scores are divided by the root of the stream's width, not of a head's."""
    return setup("scaled by stream", lambda: Story(attention=ByStream))


class Lanes(nn.Module):
    """Hyper-connections: the stream is in lanes. A branch reads a weighted sum of them, and what it says is added to
    each, with a weight; the lanes are mixed by a matrix on their way around it."""

    def __init__(self, branch, lanes, first, mixes):
        super().__init__()
        self.branch, self.norm = branch, nn.RMSNorm(D)
        self.read = mx.zeros((lanes,)).at[first % lanes].add(1.0)
        self.say, self.mix = mx.ones((lanes,)), mx.eye(lanes)
        self.mixes = mixes

    def __call__(self, h):
        """[batch, time, lanes, D] to the same."""
        read = (h * self.read[:, None]).sum(axis=2)
        mixed = self.mix @ h
        said = self.branch(self.norm(read))
        return (mixed if self.mixes else h) + said[:, :, None] * self.say[:, None]


class Hyper(Story):
    LANES = 2

    def __init__(self, mixes):
        super().__init__(layers=0)
        branches = [Attention(), FeedForward(), Attention(), FeedForward()]
        self.blocks = [Lanes(branch, self.LANES, i, mixes) for i, branch in enumerate(branches)]

    def __call__(self, x):
        h = mx.repeat(self.embed(x)[:, :, None], self.LANES, axis=2)
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h.sum(axis=2)))


def f_lanes_not_mixed():
    """The lanes of hyper-connections are mixed, and returned as they were."""
    return setup("lanes not mixed", lambda: Hyper(mixes=False))


def ok_lanes_not_mixed():
    return setup("lanes mixed", lambda: Hyper(mixes=True))


class Dropping(Story):
    """A fifth of the units is left out of the embedding and of each branch: of each by itself, or the same of all."""

    SHARE = 0.2

    def __init__(self, same):
        super().__init__()
        self.same = same

    def kept(self, shape):
        return (mx.random.uniform(shape=shape) > self.SHARE) / (1 - self.SHARE)

    def __call__(self, x, cache=None):
        h = self.embed(x)
        once = self.kept(h.shape)

        def dropped(y):
            if not self.training:
                return y
            return y * (once if self.same else self.kept(y.shape))

        h = dropped(h)
        for i, block in enumerate(self.blocks):
            h = h + dropped(block.attention(block.n1(h), cache and cache[i]))
            h = h + dropped(block.feed_forward(block.n2(h)))
        return self.head(self.norm(h))


def f_one_key_for_all():
    """One random key for all dropouts: everywhere the same units are left out."""
    return setup("one key for all", lambda: Dropping(same=True))


def ok_one_key_for_all():
    return setup("a key for each", lambda: Dropping(same=False))


class Turned(Attention):
    def bias(self, queries, keys):
        return mx.where(mx.tril(mx.ones((queries, keys)), k=keys - queries) > 0, -1e9, 0.0)


def f_mask_means_the_opposite():
    """The mask is true of what must not be seen, and is given to attention that takes it for what may be seen."""
    return setup("mask means the opposite", lambda: Story(attention=Turned))


class Unmasked(Attention):
    """Where there is a cache, keys are not hidden, for one query needs no mask; a prompt has many."""

    def __call__(self, x, cache=None):
        if not cache:
            return super().__call__(x)
        q, k, v = (self.heads(f(x)) for f in (self.q, self.k, self.v))
        q, k = self.turned(q, k, cache)
        k, v = cache.update(k, v)
        weights = self.weights(q @ k.swapaxes(-1, -2) * (D // H) ** -0.5)
        return self.o((weights @ v).swapaxes(1, 2).reshape(x.shape))


def f_prompt_unmasked():
    """Decoding reads the prompt without a causal mask."""
    return setup("prompt unmasked", lambda: Story(attention=Unmasked), generate=tell_cached)


def ok_prompt_unmasked():
    return setup("prompt masked", generate=tell_cached)
