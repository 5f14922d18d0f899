"""Reported mistakes of optimisers and schedules, and their mends."""

from __future__ import annotations

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from base import B, setup, windows

EPOCH = len(windows("train")) // B


class Adagrad(optim.Optimizer):
    """Adagrad; ``moves_on`` from one accumulator to the next."""

    def __init__(self, moves_on=True):
        super().__init__()
        self.moves_on, self._first = moves_on, {}
        self._maybe_schedule("learning_rate", 0.03)

    def init_single(self, parameter, state):
        state["squares"] = mx.zeros_like(parameter)

    def apply_gradients(self, gradients, parameters):
        self._first = {}
        return super().apply_gradients(gradients, parameters)

    def apply_single(self, gradient, parameter, state):
        kept = state if self.moves_on else self._first.setdefault(parameter.shape, state)
        kept["squares"] = kept["squares"] + gradient * gradient
        return parameter - self.learning_rate * gradient / (mx.sqrt(kept["squares"]) + 1e-8)


def f_first_accumulator():
    """The index of the accumulator is never increased: all weights of a shape add to the first one's, and are divided
    by it."""
    return setup("first accumulator", optimizer=lambda: Adagrad(moves_on=False))


def ok_first_accumulator():
    return setup("Adagrad", optimizer=Adagrad)


class Lookahead(optim.AdamW):
    """After every five updates the slow weights go half of the way to the fast ones, which begin again there."""

    def __init__(self, from_nothing=False):
        super().__init__(2e-3, bias_correction=True)
        self.from_nothing = from_nothing

    def init_single(self, parameter, state):
        super().init_single(parameter, state)
        state["slow"] = mx.zeros_like(parameter)

    def apply_single(self, gradient, parameter, state):
        fast = super().apply_single(gradient, parameter, state)
        now = self.step % 5 == 0
        slow = state["slow"] if self.from_nothing else mx.where(self.step == 1, parameter, state["slow"])
        state["slow"] = mx.where(now, (slow + fast) / 2, slow)
        return mx.where(now, state["slow"], fast)


def f_slow_from_nothing():
    """The slow weights never get their first value, and are 0: the first time that they are looked at, all weights are
    halved."""
    return setup("slow weights from nothing", optimizer=lambda: Lookahead(from_nothing=True))


def ok_slow_from_nothing():
    return setup("Lookahead", optimizer=Lookahead)


class Coupled(optim.Lion):
    """Lion, whose decay of 0.3 is added to the gradient."""

    def apply_single(self, gradient, parameter, state):
        return super().apply_single(gradient + 0.3 * parameter, parameter, state)


def f_decay_inside_the_sign():
    """The decay is part of what the sign is taken of: where the weight outweighs the gradient, it alone decides."""
    return setup("decay inside the sign", optimizer=lambda: Coupled(3e-4))


def ok_decay_inside_the_sign():
    return setup("decay outside the sign", optimizer=lambda: optim.Lion(3e-4, weight_decay=0.3))


def falling(rates):
    """AdamW at these rates, one an update, and at the last from then on."""
    table = mx.array((2e-3 * rates).astype(np.float32))
    return lambda: optim.AdamW(lambda step: table[mx.minimum(step, len(rates) - 1)], bias_correction=True)


SHARES = 1 - np.arange(3 * EPOCH) / (3 * EPOCH)


def f_falls_from_the_last():
    """A line over three epochs is multiplied with the rate of the update before, not with the first: it falls as the
    product of all shares so far."""
    return setup("falls from the last rate", optimizer=falling(np.cumprod(SHARES)))


def ok_falls_from_the_last():
    return setup("falls from the first rate", optimizer=falling(SHARES))
