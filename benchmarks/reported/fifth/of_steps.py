"""Reported mistakes of optimisers and schedules, and their mends."""

from __future__ import annotations

import mlx.core as mx
import mlx.optimizers as optim
from base import setup

PEAK, UPDATES = 2e-3, 150


def multiplier(step):
    """Up over 10 updates, then level."""
    return mx.minimum(1.0, (step + 1) / 10)


def f_rate_twice():
    """What the scheduler multiplies the rate with has the rate in it, so that it enters twice."""
    return setup(
        "rate twice",
        optimizer=lambda: optim.AdamW(lambda step: PEAK * (PEAK * multiplier(step)), bias_correction=True),
    )


def ok_rate_twice():
    return setup(
        "rate once",
        optimizer=lambda: optim.AdamW(lambda step: PEAK * multiplier(step), bias_correction=True),
    )


def line(total):
    """AdamW on a line from the peak to 0 after ``total`` updates, and on along it."""
    return lambda: optim.AdamW(lambda step: PEAK * (1 - step / total), bias_correction=True)


def f_rate_below_nought():
    """The line to 0 is drawn over two thirds of the updates, since it counts stories and not the rows that they are
    cut into; from then on the rate is negative."""
    return setup("rate below nought", optimizer=line(UPDATES * 2 // 3), updates=UPDATES)


def ok_rate_below_nought():
    return setup("rate down to nought", optimizer=line(UPDATES), updates=UPDATES)


class CorrectedInPlace(optim.AdamW):
    """Adam, whose first moment is corrected for its bias in the place where it is kept."""

    def __init__(self):
        super().__init__(1e-3, bias_correction=True)

    def apply_single(self, gradient, parameter, state):
        b1, b2 = self.betas
        step = self.step.astype(gradient.dtype)
        state["m"] = (b1 * state["m"] + (1 - b1) * gradient) / (1 - b1**step)
        state["v"] = b2 * state["v"] + (1 - b2) * mx.square(gradient)
        spread = mx.sqrt(state["v"] / (1 - b2**step)) + self.eps
        return (
            parameter * (1 - self.learning_rate * self.weight_decay)
            - self.learning_rate * state["m"] / spread
        )


def f_corrected_in_place():
    """The correction of the first moment's bias is kept with it, and is made anew on top of all before it."""
    return setup("corrected in place", optimizer=CorrectedInPlace)


class ADOPT(optim.Optimizer):
    """Adam, but the gradient is divided by the root of the second moment before it enters the first."""

    def __init__(self, of_weights=False):
        super().__init__()
        self.of_weights = of_weights
        self._maybe_schedule("learning_rate", PEAK)

    def init_single(self, parameter, state):
        state["m"], state["v"] = mx.zeros_like(parameter), mx.zeros_like(parameter)

    def apply_single(self, gradient, parameter, state):
        first = self.step == 1
        ratio = gradient / mx.maximum(mx.sqrt(mx.where(first, gradient**2, state["v"])), 1e-6)
        state["m"] = mx.where(first, ratio if self.of_weights else 0.0, 0.9 * state["m"] + 0.1 * ratio)
        parameter = parameter - self.learning_rate * state["m"]
        squared = parameter**2 if self.of_weights else gradient**2
        before = mx.where(first, gradient**2, state["v"])
        state["v"] = 0.9999 * before + 0.0001 * squared
        return parameter


def f_moment_of_weights():
    """The second moment is taken of the weights, not of their gradients."""
    return setup("moment of weights", optimizer=lambda: ADOPT(of_weights=True))


def ok_moment_of_weights():
    return setup("moment of gradients", optimizer=ADOPT)
