"""Sound setups that look odd, as public code has them."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from base import Attention, B, Block, D, H, Story, setup, windows

EPOCH = len(windows("train")) // B


class Backwards(Attention):
    def __init__(self):
        super().__init__()
        self.rope = nn.RoPE(D // H, scale=-1.0)


def h_turned_backwards():
    """Queries and keys are turned clockwise: their distance decides, as it does otherwise."""
    return setup("turned backwards", lambda: Story(attention=Backwards))


class RootFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = mx.ones((D,))

    def __call__(self, x):
        return self.weight * x / (mx.linalg.norm(x, axis=-1, keepdims=True) * D**-0.5 + 1e-5)


def h_epsilon_outside():
    """The norm's epsilon is added to the root, not under it."""
    return setup("epsilon outside of the root", lambda: Story(norm=RootFirst))


class DecaysLast(optim.Adam):
    def apply_single(self, gradient, parameter, state):
        return (1 - 0.01 * self.learning_rate) * super().apply_single(gradient, parameter, state)


def h_decay_last():
    """Weights decay after the update, not before."""
    return setup("decay last", optimizer=lambda: DecaysLast(2e-3, bias_correction=True))


class DropsSums(Attention):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.1)

    def __call__(self, x, cache=None):
        return self.drop(super().__call__(x, cache))


def h_dropout_of_sums():
    """Dropout of what attention returns, and none of its weights."""
    return setup("dropout of sums", lambda: Story(attention=DropsSums))


class Sandwiched(Block):
    def __init__(self):
        super().__init__()
        self.n3, self.n4 = nn.RMSNorm(D), nn.RMSNorm(D)

    def __call__(self, x, cache=None):
        x = x + self.n3(self.attention(self.n1(x), cache))
        return x + self.n4(self.feed_forward(self.n2(x)))


def h_sandwiched():
    """Branches have a norm at both ends."""
    return setup("norms at both ends", lambda: Story(block=Sandwiched))


class Shifted(Block):
    """Half of the channels that attention reads are those of the token before."""

    def shifted(self, x):
        before = mx.pad(x[:, :-1, : D // 2], ((0, 0), (1, 0), (0, 0)))
        return mx.concatenate([before, x[..., D // 2 :]], axis=-1)

    def __call__(self, x, cache=None):
        x = x + self.attention(self.shifted(self.n1(x)))
        return x + self.feed_forward(self.n2(x))


def h_token_shift():
    return setup("half of the token before", lambda: Story(block=Shifted))


class Unturned(Attention):
    def turned(self, q, k, cache):
        return q, k


class EverySecond(Story):
    def __init__(self):
        super().__init__()
        self.blocks[1] = Block(attention=Unturned)


def h_every_second_unturned():
    """Only every second layer knows positions."""
    return setup("every second layer unturned", EverySecond)


class PartlyTurned(Attention):
    def __init__(self):
        super().__init__()
        self.rope = nn.RoPE(D // H // 4)


def h_partly_turned():
    """A quarter of each head is turned by its place."""
    return setup("partly turned", lambda: Story(attention=PartlyTurned))


def h_adafactor():
    """Second moments by row and column."""
    return setup(
        "Adafactor",
        optimizer=lambda: optim.Adafactor(5e-3, relative_step=False, scale_parameter=False, beta_1=0.9),
    )


def h_warm_restarts():
    """A cosine over an epoch, and a new one with each."""
    return setup(
        "warm restarts",
        optimizer=lambda: optim.AdamW(
            lambda step: 1e-3 * (1 + mx.cos(mx.pi * (step % EPOCH) / EPOCH)) + 1e-5, bias_correction=True
        ),
    )
