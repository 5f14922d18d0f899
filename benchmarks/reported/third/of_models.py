"""Reported mistakes inside of models, and their mends."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
from base import Attention, Block, D, H, Story, setup
from buckets import Bucketed
from mlx.utils import tree_map_with_path


class BucketedBackwards(Bucketed):
    sign = -1


def f_distance_backwards():
    """Distances are those from key to query where those from query to key are meant: all that is seen falls into the
    bucket of 0, and nothing tells the order."""
    return setup("distances with the wrong sign", lambda: Story(attention=BucketedBackwards))


def ok_distance_backwards():
    return setup("distances with their sign", lambda: Story(attention=Bucketed))


class Bounded(Story):
    def __call__(self, x, cache=None):
        return mx.tanh(super().__call__(x, cache))


def f_tanh_of_logits():
    """An activation ends the output layer: every logit lies between -1 and 1."""
    return setup("tanh of logits", Bounded)


class CapsMask(Attention):
    """Scores are kept between -5 and 5, those of what comes later, too."""

    def weights(self, scores):
        return mx.softmax(5 * mx.tanh(scores / 5), axis=-1)


class CapsScores(Attention):
    def weights(self, scores):
        return mx.softmax(mx.where(scores < -1e8, scores, 5 * mx.tanh(scores / 5)), axis=-1)


def f_mask_capped():
    """Scores are capped after the mask was added: what is hidden has the least score instead of none."""
    return setup("mask capped", lambda: Story(attention=CapsMask))


def ok_mask_capped():
    return setup("scores capped", lambda: Story(attention=CapsScores))


class ValuesTurned(Attention):
    """Values are turned by their place, and their sum is turned back by that of the query."""

    times = 1

    def __init__(self):
        super().__init__()
        self.back = nn.RoPE(D // H, scale=-1.0)

    def __call__(self, x, cache=None):
        first = cache.offset if cache else 0
        q, k, v = (self.heads(f(x)) for f in (self.q, self.k, self.v))
        q, k = self.turned(q, k, cache)
        for _ in range(self.times):
            v = self.rope(v, offset=first)
        if cache:
            k, v = cache.update(k, v)
        scores = q @ k.swapaxes(-1, -2) * (D // H) ** -0.5 + self.bias(q.shape[2], k.shape[2])
        summed = self.back(self.weights(scores) @ v, offset=first)
        return self.o(summed.swapaxes(1, 2).reshape(x.shape))


class ValuesTurnedTwice(ValuesTurned):
    times = 2


def f_values_turned_twice():
    """Values are turned by their place twice, and their sum is turned back once."""
    return setup("values turned twice", lambda: Story(attention=ValuesTurnedTwice))


def ok_values_turned_twice():
    return setup("values turned and back", lambda: Story(attention=ValuesTurned))


class ByVariance(nn.Module):
    """Divides by the standard deviation, and leaves the mean in."""

    def __init__(self):
        super().__init__()
        self.weight = mx.ones((D,))

    def __call__(self, x):
        return self.weight * x * mx.rsqrt(x.var(-1, keepdims=True) + 1e-5)


def f_rms_of_variance():
    """A norm that is to divide by the root of the mean square takes the variance."""
    return setup("norm by variance", lambda: Story(norm=ByVariance))


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.w1, self.w3 = (nn.Linear(D, 3 * D, bias=False) for _ in range(2))
        self.w2 = nn.Linear(3 * D, D, bias=False)

    def __call__(self, x):
        return self.w2(nn.silu(self.w1(x)) * self.w3(x))


class GatedBlock(Block):
    def __init__(self):
        super().__init__()
        self.feed_forward = Gated()


class Started(Story):
    """Matrices begin with a deviation of 0.02, those whose names end with one of ``thin`` with half of it."""

    def __init__(self, thin):
        super().__init__(block=GatedBlock)

        def draw(path, weight):
            scale = 0.01 if path.removesuffix(".weight").endswith(thin) else 0.02
            return scale * mx.random.normal(weight.shape) if weight.ndim == 2 else weight

        self.update(tree_map_with_path(draw, self.parameters()))


def f_thin_gate():
    """The smaller first weights of what is added to the stream are given to the gate's other half."""
    return setup("thin gate", lambda: Started(("w3", "attention.o")))


def ok_thin_gate():
    return setup("thin outputs", lambda: Started(("w2", "attention.o")))
