"""Reported mistakes inside of models, and their mends."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
from base import Attention, Block, D, FeedForward, H, Story, setup

EXPERTS, GROUP, KEPT = 4, 16, 0.5


class Unpacked(Attention):
    """Sines and cosines lie in turns and are taken apart in halves, and no cosine is added to a sine."""

    def turned(self, q, k, cache):
        first, pairs = (cache.offset if cache else 0), D // H // 2
        places = mx.arange(first, first + q.shape[2])[:, None]
        angles = places * 10000.0 ** -(mx.arange(pairs) / pairs)
        in_turns = mx.stack([mx.sin(angles), mx.cos(angles)], axis=-1).reshape(len(angles), -1)
        sine, cosine = mx.split(in_turns, 2, axis=-1)

        def apart(a):
            return mx.stack([-a[..., 1::2] * cosine, a[..., ::2] * sine], axis=-1).reshape(a.shape)

        return apart(q), apart(k)


def f_sines_in_halves():
    """Queries and keys are not rotated, but multiplied with the sines and cosines of other pairs."""
    return setup("sines in halves", lambda: Story(attention=Unpacked))


class Retention(Attention):
    """Products of queries and keys fade with the distance, in each head at another pace, in the last at none."""

    masked = True

    def __init__(self):
        super().__init__()
        self.norm = nn.RMSNorm(D // H)

    def fading(self, length):
        back = mx.arange(length)[:, None] - mx.arange(length)
        paces = mx.array([1 - 2.0**-3, 1 - 2.0**-5, 1 - 2.0**-7, 1.0])
        fading = paces[:, None, None] ** mx.where(back < 0, mx.inf, back)
        return mx.where(back < 0, 0.0, fading) if self.masked else fading

    def __call__(self, x, cache=None):
        q, k, v = (self.heads(f(x)) for f in (self.q, self.k, self.v))
        q, k = self.turned(q, k, cache)
        scores = q @ k.swapaxes(-1, -2) * (D // H) ** -0.5 * self.fading(x.shape[1])
        return self.o(self.norm(scores @ v).swapaxes(1, 2).reshape(x.shape))


class Unfading(Retention):
    masked = False


def f_one_to_infinity():
    """What lies ahead has an infinite distance, so that its power is 0; but 1 to the power of infinity is 1, and in
    the last head nothing fades."""
    return setup("one to infinity", lambda: Story(attention=Unfading))


def ok_one_to_infinity():
    return setup("retention", lambda: Story(attention=Retention))


class Experts(nn.Module):
    """Four experts, of which each token takes the likeliest, weighted with its probability."""

    def __init__(self):
        super().__init__()
        self.router = nn.Linear(D, EXPERTS, bias=False)
        self.experts = [FeedForward() for _ in range(EXPERTS)]

    def taken(self, p):
        """bool, of the shape of the probabilities [B, T, experts]."""
        return p == p.max(axis=-1, keepdims=True)

    def __call__(self, x):
        p = mx.softmax(self.router(x), axis=-1)
        weights = p * self.taken(p)
        return sum(weights[..., i : i + 1] * expert(x) for i, expert in enumerate(self.experts))


class Choosing(Experts):
    """Each expert takes the quarter of the row's tokens that suit it best."""

    def taken(self, p):
        least = mx.sort(p, axis=1)[:, -max(1, p.shape[1] // EXPERTS), None]
        return p >= least


class Routed(Block):
    def __init__(self, experts):
        super().__init__()
        self.feed_forward = experts()


def f_experts_choose():
    """Experts choose among all tokens of a row: whether one is taken depends on those behind it."""
    return setup("experts choose", lambda: Story(experts=Choosing, block=Routed))


def ok_experts_choose():
    return setup("tokens choose", lambda: Story(experts=Experts, block=Routed))


class EndsBent(FeedForward):
    def __call__(self, x):
        return nn.gelu_approx(self.down(self.up(x)))


class EndsPositive(FeedForward):
    def __call__(self, x):
        return nn.relu(super().__call__(x))


class With(Block):
    def __init__(self, layer):
        super().__init__()
        self.feed_forward = layer()


def f_activation_last():
    """The activation stands behind the second matrix of the feed-forward layer, and none between the two."""
    return setup("activation last", lambda: Story(layer=EndsBent, block=With))


def f_relu_at_the_end():
    """Both matrices of the feed-forward layer have an activation: what it adds to the stream is never negative."""
    return setup("ReLU at the end", lambda: Story(layer=EndsPositive, block=With))


class OnTheNormed(Block):
    def __call__(self, x, cache=None):
        x = self.n1(x)
        x = self.n2(x + self.attention(x, cache))
        return x + self.feed_forward(x)


def f_added_to_the_normed():
    """Branches are added to what the norm returns, not to what it was given."""
    return setup("added to the normed", lambda: Story(block=OnTheNormed))


class SometimesDeep(Block):
    """Each row is passed through a branch with a probability of one half; in evaluation all are."""

    weighted = True

    def some(self, x):
        if self.training:
            return mx.random.bernoulli(KEPT, (len(x), 1, 1)) * x
        return KEPT * x if self.weighted else x

    def __call__(self, x, cache=None):
        x = x + self.some(self.attention(self.n1(x), cache))
        return x + self.some(self.feed_forward(self.n2(x)))


class Unweighted(SometimesDeep):
    weighted = False


def f_depth_unweighted():
    """A branch that half of the training did without is added whole in evaluation."""
    return setup("depth unweighted", lambda: Story(block=Unweighted))


def ok_depth_unweighted():
    return setup("depth weighted", lambda: Story(block=SometimesDeep))


class Grouped(Attention):
    """Attention within groups of 16; for half of the heads rows are rolled by half a group."""

    ahead = False

    def bias(self, queries, keys):
        whole = -(-keys // GROUP) * GROUP

        def seen(by):
            place = (mx.arange(keys) - by) % whole
            return (place[:, None] // GROUP == place // GROUP) & (place[:, None] >= place)

        seen = mx.stack([seen(0)] * (H // 2) + [seen(GROUP // 2)] * (H // 2))
        if not self.ahead:
            seen = seen & (mx.arange(keys)[:, None] >= mx.arange(keys))
        return mx.where(seen, 0.0, -1e9)


class Rolled(Grouped):
    ahead = True


def f_groups_rolled():
    """Rows are rolled by half a group before they are cut: what was first stands behind the row's end, and sees
    it."""
    return setup("groups rolled", lambda: Story(attention=Rolled))


def ok_groups_rolled():
    return setup("groups moved", lambda: Story(attention=Grouped))
