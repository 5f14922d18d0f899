"""Reported mistakes of the update, and their mends."""

from __future__ import annotations

from functools import cache

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from base import B, D, Story, adamw, deal, mean_nats, setup, step_of, windows
from mlx.utils import tree_map


class Nesterov(optim.Optimizer):
    """Nesterov's momentum; ``onward`` is the sign with which the velocity enters the step."""

    def __init__(self, rate=0.03, momentum=0.9, onward=1.0):
        super().__init__()
        self.momentum, self.onward = momentum, onward
        self._maybe_schedule("learning_rate", rate)

    def init_single(self, parameter, state):
        state["velocity"] = mx.zeros_like(parameter)

    def apply_single(self, gradient, parameter, state):
        state["velocity"] = self.momentum * state["velocity"] + gradient
        step = gradient + self.onward * self.momentum * state["velocity"]
        return parameter - self.learning_rate * step


def f_velocity_backwards():
    """The gradient is subtracted and the velocity is added."""
    return setup("velocity backwards", optimizer=lambda: Nesterov(onward=-1.0))


def ok_velocity_backwards():
    return setup("Nesterov", optimizer=Nesterov)


class Decayed(optim.Adam):
    """Adam with decoupled decay, times the rate or not."""

    def __init__(self, rate=2e-3, decay=0.01, times_rate=True):
        super().__init__(rate, bias_correction=True)
        self.decay, self.times_rate = decay, times_rate

    def apply_single(self, gradient, parameter, state):
        rate = self.learning_rate if self.times_rate else 1.0
        return super().apply_single(gradient, parameter * (1 - rate * self.decay), state)


def f_decay_without_rate():
    """Each step takes away 1 % of the weights: the decay is not multiplied by the learning rate."""
    return setup("decay without rate", optimizer=lambda: Decayed(times_rate=False))


def ok_decay_without_rate():
    return setup("decay times rate", optimizer=Decayed)


def accumulating(parts=4, turns_each_part=False, clip=None):
    """The mean gradient of some parts of the batch; ``clip`` limits the sum after each part, and
    ``turns_each_part`` counts each part as a step of the schedule."""

    def step(model, optimizer, batch):
        total, value = None, 0.0
        for i in range(parts):
            part = [a[i * B // parts : (i + 1) * B // parts] for a in batch]
            loss, gradient = nn.value_and_grad(model, mean_nats)(model, part)
            total = gradient if total is None else tree_map(mx.add, total, gradient)
            if clip:
                total, _ = optim.clip_grad_norm(total, clip)
            value = value + loss / parts
            if turns_each_part and i:
                optimizer.state["step"] = optimizer.step + 1
        optimizer.update(model, tree_map(lambda g: g / parts, total))
        mx.eval(model.parameters(), optimizer.state, value)
        return value

    return step


def over_three_epochs():
    steps = 3 * (len(windows("train")) // B)
    return optim.AdamW(optim.cosine_decay(2e-3, steps), bias_correction=True)


def f_schedule_by_part():
    """A schedule over three epochs moves on with each of the four parts of a step, and is over within the first."""
    return setup(
        "schedule by part", optimizer=over_three_epochs, train_step=accumulating(turns_each_part=True)
    )


def ok_schedule_by_part():
    return setup("schedule by step", optimizer=over_three_epochs, train_step=accumulating())


def f_clipped_while_adding():
    """The sum of gradients is limited after each part, so that the first parts count less and less."""
    sgd = {"optimizer": lambda: optim.SGD(0.3, momentum=0.9)}
    return setup("clipped while adding", train_step=accumulating(clip=0.25), **sgd)


def warmed_up(dampened, rate=2e-3, steps=100):
    """A warmup to the rate that the optimiser was given, read before or after the first dampening."""

    def make():
        base = rate / steps if dampened else rate
        return optim.AdamW(lambda step: base * mx.minimum(1.0, (step + 1) / steps), bias_correction=True)

    return make


def f_warmup_of_warmup():
    """The warmup divides the rate as soon as it is made, and the schedule takes what is left for the peak."""
    return setup("warmup of a warmup", optimizer=warmed_up(dampened=True))


def ok_warmup_of_warmup():
    return setup("warmup", optimizer=warmed_up(dampened=False))


def in_bfloat16(layers=2):
    model = Story(layers=layers)
    model.set_dtype(mx.bfloat16)
    return model


def f_moments_in_bfloat16():
    """Weights and AdamW's moments are bfloat16 at a rate of 1e-4: most steps are rounded away."""
    return setup("moments in bfloat16", in_bfloat16, optimizer=adamw(1e-4, betas=[0.9, 0.999]))


@cache
def grown(updates=300):
    """Weights of a base that has been trained for a while."""
    mx.random.seed(11)
    model, optimizer, step = Story(), adamw()(), step_of(mean_nats)
    for _, batch in zip(
        range(updates), (b for seed in range(9) for b in deal(windows("val"), seed)), strict=False
    ):
        step(model, optimizer, batch)
    return model.parameters()


class Adapter(nn.Module):
    """A frozen linear layer and a low-rank addition to it."""

    def __init__(self, linear, rank=8, nought=False):
        super().__init__()
        self.linear = linear
        self.down = mx.zeros((rank, D)) if nought else mx.random.normal((rank, D)) * D**-0.5
        self.up = mx.zeros((linear.weight.shape[0], rank))

    def __call__(self, x):
        return self.linear(x) + 2.0 * (x @ self.down.T @ self.up.T)


def adapted(nought):
    model = Story()
    model.update(grown())
    model.freeze()
    for block in model.blocks:
        for name in "qkvo":
            setattr(block.attention, name, Adapter(getattr(block.attention, name), nought=nought))
        block.feed_forward.up = Adapter(block.feed_forward.up, nought=nought)
    return model


def f_adapter_of_noughts():
    """Both factors of the low-rank addition start at 0, for a later initialisation went over the first."""
    return setup("adapter of noughts", lambda: adapted(True))


def ok_adapter_of_noughts():
    return setup("adapter", lambda: adapted(False))
