"""Reported mistakes inside of models, and their mends."""

from __future__ import annotations

import copy

import mlx.core as mx
import mlx.nn as nn
from base import Attention, Block, D, H, Story, T, setup


def sinusoids(length):
    """[length, D]"""
    angles = mx.arange(length)[:, None] / 10000 ** (mx.arange(0, D, 2) / D)
    return mx.concatenate([mx.sin(angles), mx.cos(angles)], axis=-1)


class Unturned(Attention):
    def turned(self, q, k, cache):
        return q, k


class WithSinusoids(Story):
    def __init__(self, axis):
        super().__init__(attention=Unturned)
        self.axis = axis

    def embed(self, x):
        table = sinusoids(x.shape[self.axis])
        return self.embedding(x) + (table[:, None] if self.axis == 0 else table)


def f_positions_by_row():
    """Positions are added along the batch, as for inputs that have time first."""
    return setup("positions by row", lambda: WithSinusoids(axis=0))


def ok_positions_by_row():
    return setup("positions by place", lambda: WithSinusoids(axis=1))


class OverQueries(Attention):
    def weights(self, scores):
        return mx.softmax(scores, axis=-2)


def f_softmax_over_queries():
    """Scores are normalised over the queries, so that a weight depends on later ones."""
    return setup("softmax over queries", lambda: Story(attention=OverQueries))


class ByHand(nn.Module):
    """Root mean square norm over one axis."""

    def __init__(self, axis=-1):
        super().__init__()
        self.weight, self.axis = mx.ones((D,)), axis

    def __call__(self, x):
        return self.weight * x * mx.rsqrt((x * x).mean(self.axis, keepdims=True) + 1e-5)


def f_norm_over_time():
    """The norm's mean is taken over the places of a row."""
    return setup("norm over time", lambda: Story(norm=lambda: ByHand(-2)))


def ok_norm_over_time():
    return setup("norm over channels", lambda: Story(norm=ByHand))


class Summarised(Unturned):
    """Keys and values summed up to 12 places by learned weights over the row: linear in its length."""

    def __init__(self):
        super().__init__()
        self.sums = mx.random.normal((12, 4 * T)) * T**-0.5

    def __call__(self, x, cache=None):
        sums = self.sums[:, : x.shape[1]]
        q, k, v = self.heads(self.q(x)), self.heads(sums @ self.k(x)), self.heads(sums @ self.v(x))
        weights = mx.softmax(q @ k.swapaxes(-1, -2) * (D // H) ** -0.5, axis=-1)
        return self.o((weights @ v).swapaxes(1, 2).reshape(x.shape))


def f_summaries_of_all():
    """Attention to learned summaries of the whole row, in a model that is to be causal."""
    return setup("summaries of the row", lambda: Story(attention=Summarised))


class Normed(Block):
    def __call__(self, x, cache=None):
        x = self.n1(x)
        x = x + self.attention(x, cache)
        x = self.n2(x)
        return x + self.feed_forward(x)


def f_stream_normed():
    """What is added to is the normed stream, and not the stream."""
    return setup("normed stream", lambda: Story(block=Normed, layers=4))


def ok_stream_normed():
    return setup("four layers", lambda: Story(layers=4))


class Doubled(Block):
    def __call__(self, x, cache=None):
        x = self.attention(self.n1(x), cache)
        x = x + x
        return x + self.feed_forward(self.n2(x))


def f_added_to_itself():
    """Attention's output is added to itself instead of to its input."""
    return setup("x + x", lambda: Story(block=Doubled, layers=4))


class TurnedByHead(Attention):
    def turned(self, q, k, cache):
        return tuple(self.rope(a.swapaxes(1, 2)).swapaxes(1, 2) for a in (q, k))


def f_turned_by_head():
    """The rotary module gets [B, T, H, d] and turns by the number of the head."""
    return setup("turned by head", lambda: Story(attention=TurnedByHead))


class Window(Attention):
    """16 places back; ``seen`` is what is added where a place may be seen, ``hidden`` where it is later."""

    seen, hidden = 0.0, -1e9

    def bias(self, queries, keys):
        back = mx.arange(queries)[:, None] - mx.arange(keys)
        return mx.where(mx.abs(back) >= 16, -1e9, mx.where(back >= 0, self.seen, self.hidden))


class BinaryWindow(Window):
    seen, hidden = 1.0, 0.0


def f_window_of_ones():
    """A sliding window adds a mask of ones and zeros: later places are hidden outside of the window alone."""
    return setup("window of ones and zeros", lambda: Story(attention=BinaryWindow))


def ok_window_of_ones():
    return setup("sliding window", lambda: Story(attention=Window))


class WideHead(Story):
    def __init__(self):
        super().__init__()
        self.head.weight = mx.random.normal(self.head.weight.shape)


def f_wide_head():
    """The output layer starts with a standard deviation of 1."""
    return setup("head of standard deviation 1", WideHead)


class Capped(Story):
    def __init__(self, times_itself):
        super().__init__()
        self.times_itself = times_itself

    def __call__(self, x, cache=None):
        logits = super().__call__(x, cache)
        return (logits if self.times_itself else 30) * mx.tanh(logits / 30)


def f_cap_times_logits():
    """The soft cap multiplies by the logits where it should by the cap."""
    return setup("logits * tanh(logits / cap)", lambda: Capped(True))


def ok_cap_times_logits():
    return setup("cap * tanh(logits / cap)", lambda: Capped(False))


class Repeated(Story):
    def __init__(self):
        super().__init__(layers=1)
        self.blocks = self.blocks * 4


def f_one_block_four_times():
    """A list of blocks is made by multiplying a list of one, and all are one block."""
    return setup("[block] * 4", Repeated)


def ok_one_block_four_times():
    return setup("four blocks", lambda: Story(layers=4))


class Copied(Story):
    def __init__(self):
        super().__init__(layers=1)
        self.blocks = [copy.deepcopy(self.blocks[0]) for _ in range(4)]


def f_blocks_copied():
    """All blocks start as copies of one."""
    return setup("copies of a block", Copied)


class Recurrence(nn.Module):
    """Gated linear recurrence; a state keeps exp(-A dt) of itself at each step, and dt starts between 0.001 and 0.1."""

    def __init__(self, states=8, overwritten=False):
        super().__init__()
        self.inner, self.states = 2 * D, states
        self.inside, self.outside = nn.Linear(D, 2 * self.inner), nn.Linear(self.inner, D)
        self.select, self.dt = nn.Linear(self.inner, 2 * states), nn.Linear(self.inner, self.inner)
        self.a_log = mx.log(
            mx.broadcast_to(mx.arange(1, states + 1).astype(mx.float32), (self.inner, states))
        )
        steps = mx.exp(mx.random.uniform(mx.log(mx.array(1e-3)), mx.log(mx.array(1e-1)), (self.inner,)))
        self.dt.bias = steps + mx.log(-mx.expm1(-steps))
        if overwritten:
            self.apply_to_modules(
                lambda _, m: m.update({"bias": m.bias * 0}) if isinstance(m, nn.Linear) else None
            )

    def __call__(self, x, cache=None):
        u, gate = mx.split(nn.silu(self.inside(x)), 2, axis=-1)
        dt = nn.softplus(self.dt(u))
        b, c = mx.split(self.select(u), 2, axis=-1)
        keep, state, out = mx.exp(-dt[..., None] * mx.exp(self.a_log)), 0.0, []
        for t in range(x.shape[1]):
            state = keep[:, t] * state + (dt[:, t] * u[:, t])[..., None] * b[:, t, None]
            out.append((state * c[:, t, None]).sum(-1))
        return self.outside(mx.stack(out, axis=1) * gate)


def f_time_steps_overwritten():
    """A general initialisation of linear layers goes over the careful one of a state space's time steps."""
    return setup("time steps overwritten", lambda: Story(attention=lambda: Recurrence(overwritten=True)))


def ok_time_steps_overwritten():
    return setup("time steps kept", lambda: Story(attention=Recurrence))


class Outside(Block):
    """The feed-forward's result is added to what attention began with."""

    def __call__(self, x, cache=None):
        return x + self.feed_forward(self.n2(x + self.attention(self.n1(x), cache)))


def f_attention_not_carried():
    """The second residual starts from the block's input, so that attention reaches the stream through the
    feed-forward alone."""
    return setup("attention not carried on", lambda: Story(block=Outside, layers=4))


def ok_plain():
    return setup("plain")
