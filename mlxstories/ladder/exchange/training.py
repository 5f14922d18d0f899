"""One training of an exchange, which can be continued, compared and abandoned."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.optimizers import AdamW, Optimizer, clip_grad_norm, join_schedules, linear_schedule

from mlxstories.ladder.bench import Bench, SubjectFault, measurement
from mlxstories.ladder.bench.arrays import between, put
from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.step.optimizers import (
    RateCurve,
    copied,
    intercepted,
    parts,
    put_back,
    read_rate,
    read_schedule,
)
from mlxstories.ladder.exchange.material import Measured, held_out, material
from mlxstories.trees import by_path

POINTS = 8  # measurements of a curve
_WARMUP = 20  # updates
_CLIP = 1.0
_APART = 10_000  # seeds of one training from those of the next

Loss = Callable[[nn.Module, HostBatch], mx.array]
Step = Callable[[nn.Module, Optimizer, HostBatch], None]


class OutOfTime(Exception):
    """The time given to the exchange is over."""


@dataclass
class Clock:
    """Says when to stop; asked before each update."""

    seconds: float | None = None
    begun: float = field(default_factory=time.monotonic)

    def check(self) -> None:
        if self.seconds is not None and time.monotonic() - self.begun > self.seconds:
            raise OutOfTime


@dataclass
class Training:
    """A training on the shared batches.

    Attributes:
        name: what is exchanged.
        make: seed -> model, optimiser and step, fresh.
        around: a context for every step and measurement.
        batches: to train on, where they are not the shared ones.
        redrawn: whether its first weights are not the subject's own, but drawn anew.
        nth: of the seeds of first weights and dropout; the order of the batches stays.
        curve: (updates, held-out loss in nats per token), from 0 updates on.
        broke: why it could not go on, or None.
    """

    bench: Bench
    name: str
    make: Callable[[int], tuple[nn.Module, Optimizer, Step]]
    clock: Clock
    around: Callable[[], AbstractContextManager] = nullcontext
    batches: list[HostBatch] | None = None
    redrawn: bool = False
    nth: int = 0
    curve: list[tuple[int, float]] = field(default_factory=list)
    measured: Measured | None = None
    broke: str | None = None
    _kept: tuple | None = None
    _again: Training | None = None

    @property
    def seed(self) -> int:
        return self.bench.seed + _APART * self.nth

    @property
    def seeds(self) -> int:
        """That it was made from so far."""
        return 1 if self._again is None else 2

    @property
    def model(self) -> nn.Module:
        """As it is trained so far."""
        model, parameters, *_ = self._kept
        put(model, parameters)
        return model

    @property
    def rate(self) -> float | None:
        """Of the first part of its optimiser, as it is so far."""
        return read_rate(parts(self._kept[2])[0])

    @property
    def updates(self) -> int:
        return self.curve[-1][0] if self.curve else 0

    @property
    def loss(self) -> float:
        """The last held-out loss; infinite where the training broke down."""
        last = self.curve[-1][1] if self.curve else np.inf
        return float(last) if self.broke is None and np.isfinite(last) else float("inf")

    def again(self) -> Training:
        """The same training from the next seed; made only once."""
        if self._again is None:
            self._again = Training(
                self.bench,
                self.name,
                self.make,
                self.clock,
                self.around,
                self.batches,
                self.redrawn,
                self.nth + 1,
            ).advance()
        return self._again

    def advance(self, share: float = 1.0) -> Training:
        """Go on to this share of the updates, measuring on the way."""
        batches = self.batches or material(self.bench).batches
        goal = round(share * len(batches))
        marks = sorted({round(len(batches) * (i + 1) / POINTS) for i in range(POINTS)} | {goal})
        try:
            with self.around():
                if self._kept is None:
                    self._begin()
                for mark in marks:
                    if self.updates < mark <= goal and self.broke is None:
                        self._segment(batches[self.updates : mark], mark)
        except SubjectFault as fault:
            self.broke = fault.draft.message
        return self

    def _begin(self) -> None:
        self.bench.seed_all(self.seed)
        with self.bench.calling(f"building the setup {self.name!r}"):
            model, optimizer, step = self.make(self.seed)
        self._keep(model, optimizer, step)
        self._measure(model, 0)

    def _keep(self, model: nn.Module, optimizer: Optimizer, step: Step) -> None:
        # Some subjects hand out one model, so each training keeps what is its own.
        parameters = by_path(model.parameters())
        self._kept = model, parameters, optimizer, [copied(o.state) for o in parts(optimizer)], step

    def _segment(self, batches: list[HostBatch], mark: int) -> None:
        model, parameters, optimizer, states, step = self._kept
        put(model, parameters)
        for part, state in zip(parts(optimizer), states, strict=True):
            put_back(part.state, state)
        model.train()
        self.bench.seed_all(self.seed + 1 + self.updates)
        for batch in batches:
            self.clock.check()
            step(model, optimizer, batch)
        self._keep(model, optimizer, step)
        self._measure(model, mark)

    def _measure(self, model: nn.Module, at: int) -> None:
        self.measured = held_out(self.bench, model)
        self.curve.append((at, self.measured.loss))
        if not np.isfinite(self.measured.loss):
            self.broke = "the held-out loss is not finite"


def own_optimizer(bench: Bench) -> Optimizer:
    """The subject's own optimiser; a warmup that would outlast the exchange is cut short."""
    optimizer = bench.optimizer()
    for part, curve in zip(parts(optimizer), _schedules(bench), strict=True):
        if curve.scheduled and curve.peak_step > material(bench).updates // 10:
            part._schedulers["learning_rate"] = _shortened(part._schedulers["learning_rate"], curve)
    return optimizer


@measurement
def _schedules(bench: Bench) -> list[RateCurve]:
    return [read_schedule(part) for part in parts(bench.optimizer())]


def _shortened(schedule: Callable[[mx.array], mx.array], curve: RateCurve) -> Callable[[mx.array], mx.array]:
    """The schedule with its climb squeezed into a short warmup."""

    def rate(step: mx.array) -> mx.array:
        warming = curve.peak * mx.minimum(1.0, (step + 1) / _WARMUP)
        return mx.where(step < curve.peak_step, warming, schedule(step))

    return rate


def own_step(bench: Bench, scale: float = 1.0, *, own_gradient: bool = False) -> Step:
    """The subject's own training step.

    Args:
        scale: times its update.
        own_gradient: give the optimiser our gradient of the subject's loss, whatever the step passes on.
    """

    def gradient(model: nn.Module, batch: HostBatch):
        return nn.value_and_grad(model, lambda m: bench.loss(m, batch))(model)[1]

    def step(model: nn.Module, optimizer: Optimizer, batch: HostBatch) -> None:
        before = by_path(model.parameters()) if scale != 1 else {}
        with intercepted(optimizer, (lambda _: gradient(model, batch)) if own_gradient else None):
            bench.step(model, optimizer, batch)
        if before:
            after = by_path(model.parameters())
            put(model, {n: between(before[n], a, scale) for n, a in after.items() if n in before})

    return step


def plain_step(bench: Bench, loss: Loss) -> Step:
    """The step known to be sound: the gradient of ``loss``, its norm limited to 1, then the optimiser."""

    def step(model: nn.Module, optimizer: Optimizer, batch: HostBatch) -> None:
        with bench.calling("the gradient of the loss"):
            _, slope = nn.value_and_grad(model, lambda m: loss(m, batch))(model)
            slope, _ = clip_grad_norm(slope, _CLIP)
            optimizer.update(model, slope)
            mx.eval(model.parameters(), optimizer.state)

    return step


def plain_optimizer(rate: float) -> Optimizer:
    """AdamW with a short warmup to a constant rate."""
    warmup = linear_schedule(rate / 10, rate, _WARMUP)
    constant = join_schedules([warmup, lambda _: mx.array(rate)], [_WARMUP])
    return AdamW(constant, weight_decay=0.01, bias_correction=True)
