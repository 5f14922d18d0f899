"""The workbench of the ladder: it calls the subject's code, and leaves everything as it was found."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.optimizers import AdamW, Optimizer
from mlx.utils import tree_flatten, tree_map

from mlxstories.backend import kernels
from mlxstories.ladder import directory
from mlxstories.ladder.bench.arrays import first_of, is_pattern, masked_mean, put
from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.step.optimizers import (
    RateCurve,
    parts,
    put_states_back,
    read_schedule,
    states,
    unusable_schedule,
)
from mlxstories.ladder.bench.subject_fault import calling, fault, kept_at_a_call
from mlxstories.ladder.modes import modes, put_modes
from mlxstories.ladder.random_states import undisturbed
from mlxstories.ladder.subject import Subject
from mlxstories.trees import by_path

T = TypeVar("T")


class Bench:
    """One subject on the workbench.

    Every call into the subject's code goes through `calling`, which turns exceptions into findings. What is
    measured here is kept: see `measurement`.

    Attributes:
        subject: what is examined.
        seed: of everything drawn.
        stories: rows that the minimal rung memorises.
        width: longest rows to look at in quick checks, or None.
        brief: set once a cause is known: training that would only show its consequences is kept short.
    """

    def __init__(self, subject: Subject, seed: int = 0, *, stories: int = 4, width: int | None = None):
        kernels.prepare()
        self.subject = subject
        self.seed = seed
        self.stories = stories
        self.width = width
        self.brief = False
        self.taken: dict[Callable, Any] = {}
        self._first: dict[str, tuple[Any, Any]] = {}
        self._asked = False

    calling, fault = staticmethod(calling), staticmethod(fault)

    @property
    def minimises_ours(self) -> bool:
        """Whether the subject brings neither a loss nor a step, so that both are our own."""
        return self.subject.loss is None and self.subject.train_step is None

    def seed_all(self, seed: int) -> None:
        mx.random.seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)

    def model(self, seed: int | None = None) -> nn.Module:
        """A fresh model of the subject's; an object that it returns again is restored to its first state."""
        self.seed_all(self.seed if seed is None else seed)
        with self.calling("model()"):
            model = self.subject.model()
            if not isinstance(model, nn.Module):
                raise self.fault(
                    f"model() returned {type(model).__name__}, not an mlx.nn.Module",
                    "return the model",
                    part="model",
                )
            mx.eval(model.parameters())
        first, kept = self._first.setdefault("model", (model, None))
        if kept is None:
            self._first["model"] = (model, (tree_map(lambda a: a, model.parameters()), modes(model)))
        elif first is model:
            self._restore_model()
        return model

    @property
    def hands_out_one_model(self) -> bool:
        """Whether the subject's model() returns the same object every time."""
        return self.model() is self.model()

    def optimizer(self) -> Optimizer:
        """A fresh optimiser of the subject's; an object that it returns again is restored to its first state."""
        with self.calling("optimizer()"):
            make = self.subject.optimizer or (lambda: AdamW(1e-3, bias_correction=True))
            optimizer = make()
            if not isinstance(optimizer, Optimizer):
                raise self.fault(
                    f"optimizer() returned {type(optimizer).__name__}, not an mlx.optimizers.Optimizer",
                    "return one of mlx.optimizers",
                    part="step",
                )
        first, kept = self._first.setdefault("optimizer", (optimizer, None))
        if kept is None:
            schedules = [dict(part._schedulers) for part in parts(optimizer)]
            self._first["optimizer"] = (optimizer, (states(optimizer), schedules))
        elif first is optimizer:
            self._restore_optimizer()
        return optimizer

    def _restore_model(self):
        model, (parameters, kept) = self._first["model"]
        model.update(parameters)
        put_modes(kept)

    def _restore_optimizer(self):
        optimizer, (kept, schedules) = self._first["optimizer"]
        put_states_back(optimizer, kept)
        for part, schedulers in zip(parts(optimizer), schedules, strict=True):
            part._initialized = False
            part._schedulers = dict(schedulers)

    @contextmanager
    def protected(self) -> Iterator[None]:
        """Leave random states, the working directory, and the subject's first model and optimiser as they were."""
        with undisturbed(), directory.kept():
            try:
                yield
            finally:
                if "model" in self._first:
                    self._restore_model()
                if "optimizer" in self._first:
                    self._restore_optimizer()

    def logits(self, model: nn.Module, inputs, *, raw: bool = False) -> mx.array:
        """Logits, float32 [B, T, V], evaluated; a banned token's minus infinity is made finite unless ``raw``."""
        inputs = mx.array(np.asarray(inputs).astype(np.int32)) if not isinstance(inputs, mx.array) else inputs
        with self.calling("model(tokens)"):
            before = None if self._asked else _names(model)
            out = model(inputs)
            if before is not None and (kept := [n for n in _names(model) if n not in before]):
                raise kept_at_a_call(kept)
            self._asked = True
            out = first_of(out)
            if not isinstance(out, mx.array) or out.ndim != 3 or out.shape[:2] != inputs.shape:
                shape = list(out.shape) if isinstance(out, mx.array) else type(out).__name__
                raise self.fault(
                    f"model(tokens) returned {shape} for tokens of shape {list(inputs.shape)}",
                    "return logits of shape [B, T, V]",
                    part="model",
                )
            out = out.astype(mx.float32)
            mx.eval(out)
        if not raw and bool(mx.any(out == -mx.inf)):
            banned = out == -mx.inf
            # relative to the same place's other logits, or a ban would couple rows and places
            lowest = mx.where(banned, mx.inf, out).min(axis=-1, keepdims=True)
            out = mx.where(banned, lowest - 20, out)
        return out

    def loss(self, model: nn.Module, batch: HostBatch) -> mx.array:
        """The subject's training loss, a scalar, not yet evaluated; of several values the first, as in MLX."""
        if self.subject.loss is None:
            return masked_mean(model, batch.device())
        return first_of(self.subject.loss(model, batch.user()))

    def step(self, model: nn.Module, optimizer: Optimizer, batch: HostBatch) -> float:
        """One call of the subject's own training step; returns its loss."""
        with self.calling("train_step" if self.subject.train_step else "loss"):
            try:
                if self.subject.train_step is not None:
                    loss = self.subject.train_step(model, optimizer, batch.user())
                else:
                    loss, gradients = nn.value_and_grad(model, lambda m: self.loss(m, batch))(model)
                    optimizer.update(model, gradients)
            except (AttributeError, TypeError) as raised:
                if (found := unusable_schedule(optimizer)) is None:
                    raise
                raise self.fault(
                    f"the optimiser's schedule of its {found.name} returns a {type(found.value).__name__}, where MLX "
                    f"takes an array: the update raised {type(raised).__name__}: {raised}",
                    "return mx.array(rate) from the schedule, or give a rate that is constant as a number",
                    "optimizer",
                    part="step",
                ) from raised
            while isinstance(loss, (tuple, list)) and loss:
                loss = loss[0]
            if loss is None or isinstance(loss, (str, tuple, list, Mapping)):
                raise self.fault(
                    f"train_step returned {'nothing' if loss is None else f'a {type(loss).__name__}'}, not its loss",
                    "return the loss from it, a scalar, or first in a tuple",
                    "train_step",
                    part="step",
                )
            if isinstance(loss, mx.array) and loss.size != 1:
                raise self.fault(
                    f"the step's loss has shape {list(loss.shape)}",
                    "reduce the loss to a scalar",
                    part="step" if self.subject.train_step else "loss",
                )
            mx.eval(model.parameters(), optimizer.state, loss if isinstance(loss, mx.array) else mx.array(0))
            return float(loss)

    @property
    def schedule(self) -> RateCurve:
        """The learning rate of the optimiser's first part over the updates, as far as it can be read."""
        return schedule(self)

    def gradients(self, model: nn.Module, batch: HostBatch) -> dict[str, mx.array]:
        """Gradients of our own masked mean cross-entropy by parameter path, evaluated."""
        if not tree_flatten(model.trainable_parameters()):
            return {}
        flat = {name: g for name, g in by_path(self.slope(model, batch)).items() if isinstance(g, mx.array)}
        with self.calling("the gradient of model(tokens)"):
            mx.eval(flat)
        return flat

    def slope(self, model: nn.Module, batch: HostBatch) -> dict[str, Any]:
        """Those gradients as the tree that MLX returns, not yet evaluated."""
        device, kept = batch.device(), model.trainable_parameters()

        def gradient():
            return nn.value_and_grad(model, lambda m: masked_mean(m, device))(model)[1]

        def again():
            model.update(kept)  # the exception left the arrays of the broken-off pass in it
            return gradient()

        with self.calling("the gradient of model(tokens)"):
            try:
                return gradient()
            except ValueError as raised:
                from mlxstories.ladder.where.indices import unstopped  # its room uses this one

                line = unstopped(again) if "respect to indices" in str(raised) else None
                if line is None:
                    raise
                raise self.fault(
                    "the gradient of model(tokens) cannot be taken: MLX asks for that of the indices "
                    "that are made here, which have none",
                    "wrap them: mx.stop_gradient(mx.argpartition(...)), or argsort or argmax",
                    f"{line.file}:{line.line}",
                    exception="ValueError",
                    part="model",
                ) from raised

    def noisy(self, seed: int = 0, amount: float = 1.0, *, frozen: bool = False) -> nn.Module:
        """A fresh model with noise on its weights, so that those that start at 0 hide nothing: on all that training
        moves, with ``frozen`` also on the rest, never on masks. An array of one sign keeps it, since a decay that
        changed its sign would become growth."""
        model = self.model()
        rng = np.random.default_rng((self.seed, seed))
        changed = {}
        for name, array in by_path(model.parameters() if frozen else model.trainable_parameters()).items():
            if not mx.issubdtype(array.dtype, mx.floating) or array.size == 0:
                continue
            if not bool(mx.all(mx.abs(array.astype(mx.float32)) < 1e3)) or is_pattern(array):
                continue  # a mask kept as a parameter, or broken weights
            scale = amount * (0.1 if array.ndim < 2 else 1 / np.sqrt(array.shape[-1]))
            noise = mx.array(rng.standard_normal(array.shape, dtype=np.float32) * np.float32(scale))
            noised = array.astype(mx.float32) + noise
            for sign in (-1, 1):
                if bool(mx.all(sign * array > 0)):
                    noised = sign * mx.abs(noised)
            changed[name] = noised.astype(array.dtype)
        put(model, changed)
        return model


def _names(model: nn.Module) -> set[str]:
    return set(by_path(model.parameters()))


def measurement(take: Callable[[Bench], T]) -> Callable[[Bench], T]:
    """Decorator: keep what a function of the bench returns, so that nothing is measured twice. It never judges."""

    @wraps(take)
    def taken(bench: Bench) -> T:
        if taken not in bench.taken:
            bench.taken[taken] = take(bench)
        return bench.taken[taken]

    return taken


@measurement
def schedule(bench: Bench) -> RateCurve:
    """The subject's learning-rate schedule, that of the first part of its optimiser; `part_rates` has all."""
    return read_schedule(bench.optimizer())
