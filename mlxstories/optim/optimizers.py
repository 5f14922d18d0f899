"""Optimisers as subclasses of MLX's own, so that they work wherever one of MLX's does.

In all of them w is a parameter, g its gradient, t = 1, 2, ... the update, and lr_t the schedule's value
after t - 1 updates. Arithmetic and moments are float32 whatever the parameter's type: in bfloat16
1 - lr * weight_decay would round to 1. The rate of the last update can be read from
``state["learning_rate"]``. Decay is never hidden in the moments unless said: *decoupled* decay takes
lr_t * weight_decay * w off the parameter, as PyTorch does (Loshchilov and Hutter 2019 let only the schedule's
multiplier scale it, not the rate); *coupled* decay adds weight_decay * w to the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import mlx.core as mx
from mlx.optimizers import Optimizer

from mlxstories.bounds import check_number
from mlxstories.optim.schedules import Schedule


def check_betas(betas: Sequence[float]) -> None:
    """Raises StoriesError unless each is a decay of a moment, in [0, 1)."""
    for index, beta in enumerate(betas):
        check_number(f"betas[{index}]", beta, at_least=0, below=1)


class Rule(Optimizer):
    """An update rule in float32: ``moments`` names the state, ``step_from`` is the rule itself."""

    moments: tuple[str, ...] = ()
    _once: list[mx.array] | None = None

    def __init__(self, learning_rate: float | Schedule, weight_decay: float):
        super().__init__()
        if not callable(learning_rate):
            check_number("learning_rate", learning_rate, at_least=0)
        check_number("weight_decay", weight_decay, at_least=0)
        self.weight_decay = weight_decay
        self._maybe_schedule("learning_rate", learning_rate)

    def init_single(self, parameter: mx.array, state: dict) -> None:
        for name in self.moments:
            state[name] = mx.zeros(parameter.shape, mx.float32)

    def apply_gradients(self, gradients: dict, parameters: dict) -> dict:
        self._once = None
        updated = super().apply_gradients(gradients, parameters)
        self._once = None
        return updated

    def once(self, scalars: Callable[[], Sequence[mx.array]]) -> list[mx.array]:
        """The scalars that all parameters of an update share, computed for the first one.

        The stack is an operation that mx.compile cannot fuse; else each element would compute them.
        """
        if self._once is None:
            self._once = list(mx.stack(list(scalars())))
        return self._once

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        g, w = gradient.astype(mx.float32), parameter.astype(mx.float32)
        return self.step_from(g, w, state, self.learning_rate).astype(parameter.dtype)

    def step_from(self, g: mx.array, w: mx.array, state: dict, lr: mx.array) -> mx.array:
        """The new parameter, float32; ``state`` is updated in place."""
        raise NotImplementedError

    def decayed(self, w: mx.array, lr: mx.array) -> mx.array:
        """The parameter after decoupled decay, float32."""
        return w * (1 - lr * self.weight_decay) if self.weight_decay else w


class _Adaptive(Rule):
    """What the Adam family shares: m and v, their means over time, and how their start at 0 is corrected."""

    moments: tuple[str, ...] = ("m", "v")

    def __init__(
        self,
        learning_rate: float | Schedule,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(learning_rate, weight_decay)
        check_betas(betas)
        check_number("eps", eps, at_least=0)
        self.betas, self.eps = betas, eps

    def _update_moments(self, g: mx.array, state: dict) -> tuple[mx.array, mx.array]:
        # m + (1 - b) (g - m) is b m + (1 - b) g, without the error of b's own rounding in float32.
        m, v = state["m"], state["v"]
        m = m + (1 - self.betas[0]) * (g - m)
        v = v + (1 - self.betas[1]) * (g * g - v)
        state["m"], state["v"] = m, v
        return m, v

    def _correction(self, beta: float) -> mx.array:
        """1 - beta^t; float32 would lose five digits of it at t = 1 if it were computed as written."""
        if beta == 0:
            return mx.array(1.0)
        return -mx.expm1(self.step.astype(mx.float32) * math.log(beta))


class AdamW(_Adaptive):
    """Adam (Kingma and Ba 2015, alg. 1), with decoupled decay (Loshchilov and Hutter 2019, alg. 2) or not.

        g  <- g + weight_decay * w                      when not decoupled
        m  <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2
        w  <- w - lr_t * weight_decay * w               when decoupled
        w  <- w - lr_t * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

    Args:
        learning_rate: a number, or a schedule.
        betas: b1, b2 in [0, 1).
        eps: added to the denominator.
        weight_decay: see the equations.
        decoupled: False gives Adam with L2 regularisation.
        bias_correction: False leaves out both divisions by 1 - b^t, as MLX's own AdamW does by default; the
            first update is then (1 - b1) / sqrt(1 - b2) times as large, 3.16 for (0.9, 0.999).
        amsgrad: divide by the greatest v so far (Reddi et al. 2018, alg. 2; corrected as in PyTorch).
    """

    def __init__(
        self,
        learning_rate: float | Schedule,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        decoupled: bool = True,
        bias_correction: bool = True,
        amsgrad: bool = False,
    ):
        super().__init__(learning_rate, betas, eps, weight_decay)
        self.decoupled, self.bias_correction, self.amsgrad = decoupled, bias_correction, amsgrad
        if amsgrad:
            self.moments = ("m", "v", "v_max")

    def step_from(self, g: mx.array, w: mx.array, state: dict, lr: mx.array) -> mx.array:
        if self.decoupled:
            w = self.decayed(w, lr)
        elif self.weight_decay:
            g = g + self.weight_decay * w
        m, v = self._update_moments(g, state)
        if self.amsgrad:
            v = state["v_max"] = mx.maximum(state["v_max"], v)
        if not self.bias_correction:
            return w - lr * m / (mx.sqrt(v) + self.eps)
        rate, root = self.once(
            lambda: (lr / self._correction(self.betas[0]), mx.rsqrt(self._correction(self.betas[1])))
        )
        return w - rate * m / (mx.sqrt(v) * root + self.eps)


class NAdamW(_Adaptive):
    """Adam with Nesterov momentum (Dozat 2016, alg. 2, with its momentum schedule) and decoupled decay.

    mu_t = b1 (1 - 0.5 * 0.96^(0.004 t))
    m  <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2
    m' =  mu_{t+1} m / (1 - mu_1 ... mu_{t+1}) + (1 - mu_t) g / (1 - mu_1 ... mu_t)
    w  <- w - lr_t * weight_decay * w
    w  <- w - lr_t * m' / (sqrt(v / (1 - b2^t)) + eps)
    """

    def __init__(
        self,
        learning_rate: float | Schedule,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ):
        super().__init__(learning_rate, betas, eps, weight_decay)
        self.state["momentum_product"] = mx.array(1.0)
        # MLX evaluates what is on a schedule once an update, before the update is counted.
        self._schedulers["momentum_product"] = lambda done: (
            self.state["momentum_product"] * self._momentum(done.astype(mx.float32) + 1)
        )

    def _momentum(self, t: mx.array) -> mx.array:
        return self.betas[0] * (1 - 0.5 * mx.exp(0.004 * math.log(0.96) * t))

    def step_from(self, g: mx.array, w: mx.array, state: dict, lr: mx.array) -> mx.array:
        w = self.decayed(w, lr)
        m, v = self._update_moments(g, state)
        of_m, of_g, root = self.once(lambda: self._factors(lr))
        return w - (of_m * m + of_g * g) / (mx.sqrt(v) * root + self.eps)

    def _factors(self, lr: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        t, product = self.step.astype(mx.float32), self.state["momentum_product"]
        now, ahead = self._momentum(t), self._momentum(t + 1)
        return (
            lr * ahead / (1 - product * ahead),
            lr * (1 - now) / (1 - product),
            mx.rsqrt(self._correction(self.betas[1])),
        )


class Lion(Rule):
    """The sign of an interpolated momentum (Chen et al. 2023, alg. 2), with decoupled decay.

        u  =  sign(b1 m + (1 - b1) g)
        m  <- b2 m + (1 - b2) g
        w  <- w - lr_t * (u + weight_decay * w)

    Its update has size lr_t in every coordinate: the paper takes rates 3 to 10 times smaller than AdamW's and
    decays that much larger.
    """

    moments = ("m",)

    def __init__(
        self,
        learning_rate: float | Schedule,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ):
        super().__init__(learning_rate, weight_decay)
        check_betas(betas)
        self.betas = betas

    def step_from(self, g: mx.array, w: mx.array, state: dict, lr: mx.array) -> mx.array:
        m = state["m"]
        update = mx.sign(m + (1 - self.betas[0]) * (g - m))
        state["m"] = m + (1 - self.betas[1]) * (g - m)
        return self.decayed(w, lr) - lr * update


class SGD(Rule):
    """Gradient descent with heavy-ball momentum (Polyak 1964, in PyTorch's form) and coupled decay.

    g  <- g + weight_decay * w
    m  <- momentum * m + g
    w  <- w - lr_t * m
    """

    moments = ("m",)

    def __init__(self, learning_rate: float | Schedule, momentum: float = 0.9, weight_decay: float = 0.0):
        super().__init__(learning_rate, weight_decay)
        check_number("momentum", momentum, at_least=0, below=1)
        self.momentum = momentum

    def step_from(self, g: mx.array, w: mx.array, state: dict, lr: mx.array) -> mx.array:
        if self.weight_decay:
            g = g + self.weight_decay * w
        m = state["m"] = self.momentum * state["m"] + g
        return w - lr * m
