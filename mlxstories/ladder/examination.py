"""The workbench of the ladder: fresh models, the subject's own step, and everything left as it was found."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.optimizers import AdamW, Optimizer
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from mlxstories.backend import kernels  # noqa: F401  (puts the fast BLAS in place)
from mlxstories.ladder.batches import HostBatch, UnusableBatch, read_batch
from mlxstories.ladder.finding import ERROR, Check, Finding, Rung
from mlxstories.ladder.optimizers import (
    Schedule,
    copied,
    intercepted,
    parts,
    put_back,
    read_rate,
    read_schedule,
)
from mlxstories.ladder.subject import Subject, blame, describe_error

_MAX_BATCHES = 400  # of an epoch that are read
_MAX_CELLS = 400_000  # tokens of an epoch that are read
_CHEAP = 1_200_000  # logits of a step on the workbench
_EVALUATED = 1_000_000  # logits held at once


class SubjectFault(Exception):
    """The subject's own code failed; carries the finding."""

    def __init__(self, finding: Finding):
        super().__init__(finding.message)
        self.finding = finding


@dataclass
class Epoch:
    """The batches of one epoch that were read, and whether that was all of them."""

    batches: list[HostBatch]
    complete: bool

    @cached_property
    def cells(self) -> int:
        return sum(int((batch.mask > 0).sum()) for batch in self.batches)


@dataclass
class Run:
    """A training run on the workbench.

    Attributes:
        losses: what the step returned, before each update.
        rates: the optimiser's learning rate at each update, where it can be read.
        points: (updates done, loss, accuracy), measured by us in evaluation mode.
    """

    model: nn.Module
    optimizer: Optimizer
    losses: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    points: list[tuple[int, float, float]] = field(default_factory=list)

    @property
    def finite(self) -> bool:
        return bool(np.isfinite([*self.losses, *(p[1] for p in self.points)]).all())


class Examination:
    """One subject on the workbench: what was read from it, and how to run it.

    Every call into the subject's code goes through ``calling``, which turns exceptions into findings.
    """

    def __init__(
        self,
        subject: Subject,
        seed: int,
        on_event: Callable[[str, Any], None] | None = None,
        stories: int = 4,
    ):
        self.subject = subject
        self.seed = seed
        self.stories = stories
        self.rung = Rung("data")
        self.findings: list[Finding] = []
        self.facts: dict[str, Any] = {}  # what one rung learns and later ones build on
        self._on_event = on_event or (lambda kind, value: None)
        self._first: dict[str, tuple[Any, Any]] = {}

    # --- reporting -------------------------------------------------------------------------------

    def found(
        self, code: str, severity: str, message: str, *, fix: str = "", where: str | None = None, **evidence
    ):
        """Record a finding of the current rung."""
        evidence = {key: _plain(value) for key, value in evidence.items()}
        self.findings.append(Finding(code, severity, self.rung.name, message, evidence, fix, where))
        self._on_event("finding", self.findings[-1])

    def check(self, name: str, passed: bool | None, detail: str = ""):
        """Record a check: passed, failed, or skipped (None) with the reason."""
        status = "skipped" if passed is None else "passed" if passed else "failed"
        self.rung.checks.append(Check(name, status, detail))
        self._on_event("check", self.rung.checks[-1])

    def has(self, *codes: str) -> bool:
        """Whether one of these was found as an error, any error where none are named."""
        return any(f.severity == ERROR and (not codes or f.code in codes) for f in self.findings)

    @property
    def cause(self) -> str:
        """Code of the first error found so far."""
        return next((f.code for f in self.findings if f.severity == ERROR), "")

    # --- calling the subject ---------------------------------------------------------------------

    @contextmanager
    def calling(self, what: str) -> Iterator[None]:
        """Turn an exception of the subject's code into a ``SubjectFault``."""
        try:
            yield
        except SubjectFault:
            raise
        except (Exception, SystemExit) as error:
            where = blame(error) or what
            finding = Finding(
                "subject-error",
                ERROR,
                self.rung.name,
                f"{what} raised {describe_error(error)}",
                {"exception": type(error).__name__},
                f"call {what} on one batch by hand and mend what it raises",
                where,
            )
            raise SubjectFault(finding) from error

    def fault(self, message: str, fix: str, where: str | None = None) -> SubjectFault:
        return SubjectFault(Finding("subject-error", ERROR, self.rung.name, message, {}, fix, where))

    def seed_all(self, seed: int) -> None:
        mx.random.seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)

    def model(self, seed: int | None = None) -> nn.Module:
        """A fresh model of the subject's; where it hands out the same object twice, that one put back."""
        self.seed_all(self.seed if seed is None else seed)
        with self.calling("model()"):
            model = self.subject.model()
            if not isinstance(model, nn.Module):
                raise self.fault(
                    f"model() returned {type(model).__name__}, not an mlx.nn.Module", "return the model"
                )
            mx.eval(model.parameters())
        first, kept = self._first.setdefault("model", (model, None))
        if kept is None:
            self._first["model"] = (model, (tree_map(lambda a: a, model.parameters()), model.training))
        elif first is model:
            self._restore_model()
        return model

    def optimizer(self) -> Optimizer:
        """A fresh optimiser of the subject's; where it hands out the same object twice, that one put back."""
        with self.calling("optimizer()"):
            make = self.subject.optimizer or (lambda: AdamW(1e-3, bias_correction=True))
            optimizer = make()
            if not isinstance(optimizer, Optimizer):
                raise self.fault(
                    f"optimizer() returned {type(optimizer).__name__}, not an mlx.optimizers.Optimizer",
                    "return one of mlx.optimizers",
                )
        first, kept = self._first.setdefault("optimizer", (optimizer, None))
        if kept is None:
            self._first["optimizer"] = (optimizer, [copied(o.state) for o in parts(optimizer)])
        elif first is optimizer:
            self._restore_optimizer()
        return optimizer

    def _restore_model(self):
        model, (parameters, training) = self._first["model"]
        model.update(parameters)
        model.train(training)

    def _restore_optimizer(self):
        optimizer, states = self._first["optimizer"]
        for part, state in zip(parts(optimizer), states, strict=True):
            put_back(part.state, state)
            part._initialized = False

    @contextmanager
    def protected(self) -> Iterator[None]:
        """Leave random states, and a model or optimiser that the user handed out, as they were found."""
        states = random.getstate(), np.random.get_state(), np.array(mx.random.state[0])
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            high, low = (int(part) for part in states[2])
            mx.random.seed((high << 32) | low)
            if "model" in self._first:
                self._restore_model()
            if "optimizer" in self._first:
                self._restore_optimizer()

    def logits(self, model: nn.Module, inputs, *, raw: bool = False) -> mx.array:
        """float32 [B, T, V], evaluated; banned tokens' minus infinity made finite unless ``raw``."""
        inputs = mx.array(np.asarray(inputs).astype(np.int32)) if not isinstance(inputs, mx.array) else inputs
        with self.calling("model(tokens)"):
            out = model(inputs)
            out = out[0] if isinstance(out, (tuple, list)) else out
            if not isinstance(out, mx.array) or out.ndim != 3 or out.shape[:2] != inputs.shape:
                shape = list(out.shape) if isinstance(out, mx.array) else type(out).__name__
                raise self.fault(
                    f"model(tokens) returned {shape} for tokens of shape {list(inputs.shape)}",
                    "return logits of shape [B, T, V]",
                )
            out = out.astype(mx.float32)
            mx.eval(out)
        if not raw and bool(mx.any(out == -mx.inf)):
            banned = out == -mx.inf
            out = mx.where(banned, mx.where(banned, mx.inf, out).min() - 20, out)
        return out

    def loss(self, model: nn.Module, batch: HostBatch) -> mx.array:
        """The subject's training loss, a scalar, not yet evaluated."""
        if self.subject.loss is None:
            return masked_mean(model, batch.device())
        return self.subject.loss(model, batch.user())

    def step(self, model: nn.Module, optimizer: Optimizer, batch: HostBatch) -> float:
        """One call of the subject's own training step; returns its loss."""
        with self.calling("train_step" if self.subject.train_step else "loss"):
            if self.subject.train_step is not None:
                loss = self.subject.train_step(model, optimizer, batch.user())
            else:
                loss, gradients = nn.value_and_grad(model, lambda m: self.loss(m, batch))(model)
                optimizer.update(model, gradients)
            if isinstance(loss, (tuple, list)) and loss:
                loss = loss[0]
            if isinstance(loss, mx.array) and loss.size != 1:
                raise self.fault(
                    f"the step's loss has shape {list(loss.shape)}", "reduce the loss to a scalar"
                )
            mx.eval(model.parameters(), optimizer.state, loss if isinstance(loss, mx.array) else mx.array(0))
            return float("nan") if loss is None else float(loss)

    # --- data ------------------------------------------------------------------------------------

    def read(self, what: str, batches: Callable[[], Any]) -> Epoch:
        """Read an epoch on the host, bounded in batches and tokens."""
        read: list[HostBatch] = []
        cells, complete = 0, True
        deadline = time.monotonic() + 10  # for generators that hardly ever yield
        with self.calling(what):
            for index, item in enumerate(batches()):
                try:
                    read.append(read_batch(item))
                except UnusableBatch as error:
                    raise self.fault(
                        f"batch {index} of {what} {error}",
                        "yield Batch(inputs, targets, mask), each of shape [B, T]",
                        f"{what}, batch {index}",
                    ) from error
                cells += read[-1].inputs.size
                if len(read) >= _MAX_BATCHES or cells >= _MAX_CELLS or time.monotonic() > deadline:
                    complete = False
                    break
        return Epoch(read, complete)

    @cached_property
    def train(self) -> Epoch:
        self.seed_all(self.seed)
        return self.read(f"train_batches({self.seed})", lambda: self.subject.train_batches(self.seed))

    @cached_property
    def val(self) -> Epoch | None:
        if self.subject.val_batches is None:
            return None
        return self.read("val_batches()", self.subject.val_batches)

    @cached_property
    def sample(self) -> HostBatch:
        """Up to 64 distinct training rows of one shape, the fullest first among equals in order of appearance."""
        rows = self.pool(64)
        full = np.argsort(-(rows.mask > 0).sum(1), kind="stable")
        return rows.rows(full)

    def pool(self, count: int, epoch: Epoch | None = None) -> HostBatch:
        """Up to ``count`` distinct rows of the commonest length of an epoch."""
        batches = (epoch or self.train).batches
        lengths = [batch.shape[1] for batch in batches for _ in range(batch.shape[0])]
        length = max(set(lengths), key=lengths.count)
        same = [batch for batch in batches if batch.shape[1] == length]
        joined = same[0].with_(
            inputs=np.concatenate([b.inputs for b in same]),
            targets=np.concatenate([b.targets for b in same]),
            mask=np.concatenate([b.mask for b in same]),
        )
        _, first = np.unique(
            np.concatenate([joined.inputs, joined.targets], axis=1), axis=0, return_index=True
        )
        real = joined.mask.sum(1) > 0
        order = [i for i in np.sort(first) if real[i]] or [0]
        return joined.rows(np.array(order[:count]))

    def small(self, batch: HostBatch) -> HostBatch:
        """A batch cut so that a step on it is cheap: fewer rows, then shorter ones."""
        rows = min(batch.shape[0], self.stories)
        width = max(16, _CHEAP // (rows * self.subject.vocab_size))
        batch = batch.rows(slice(0, rows))
        return batch.cut(width) if width < batch.shape[1] else batch

    @cached_property
    def minimal(self) -> HostBatch:
        """The four stories (fewer where there are fewer) that the minimal rung memorises."""
        return self._accepted(self.small(self.sample))

    def probe_batch(self, index: int) -> HostBatch:
        """One of several small batches of different rows."""
        count = self.minimal.shape[0]
        rows = (np.arange(count) + index * count) % self.sample.shape[0]
        return self.sample.rows(rows).cut(self.minimal.shape[1])

    def _accepted(self, batch: HostBatch) -> HostBatch:
        """The batch, or one of the subject's full size where its step insists on that."""
        try:
            self.step(self.model(), self.optimizer(), batch)
            return batch
        except SubjectFault:
            rows, columns = self.train.batches[0].shape
            return self.sample.rows(np.arange(rows) % min(4, self.sample.shape[0])).cut(columns)

    # --- training --------------------------------------------------------------------------------

    def run(
        self,
        batches: Sequence[HostBatch],
        steps: int,
        *,
        scale: float = 1.0,
        measure: HostBatch | None = None,
        at: Sequence[int] = (),
        model: nn.Module | None = None,
        ramp: int = 0,
        transform: Callable[[dict, dict, int], dict] | None = None,
        receive: Callable[[Any], Any] | None = None,
        patience: bool = True,
    ) -> Run:
        """Train with the subject's own step, its update scaled to the peak of its learning-rate schedule,
        times ``scale``; black box: parameters move by ``scale`` times what the step moved them.

        ``transform(before, after, step)`` may replace the parameters instead, ``receive`` the gradients that
        reach the optimiser; ``at`` are the numbers of updates at which ``measure`` is evaluated, ``ramp`` steps
        grow from nothing to the full update.
        """
        model = model or self.model()
        optimizer = self.optimizer()
        if receive is not None:
            with intercepted(optimizer, receive):
                return self._train(
                    model, optimizer, batches, steps, scale, measure, at, ramp, transform, patience
                )
        return self._train(model, optimizer, batches, steps, scale, measure, at, ramp, transform, patience)

    def _train(self, model, optimizer, batches, steps, scale, measure, at, ramp, transform, patience) -> Run:
        model.train()
        run = Run(model, optimizer)
        self.seed_all(self.seed + 1)
        peak = self.schedule.peak
        for step in range(steps):
            before = dict(tree_flatten(model.parameters()))
            run.losses.append(self.step(model, optimizer, batches[step % len(batches)]))
            rate = read_rate(optimizer)
            run.rates.append(rate)
            factor = scale * min(1.0, (step + 1) / ramp if ramp else 1.0)
            if peak and rate and self.schedule.scheduled:
                factor *= peak / rate
            if transform is not None or not 0.999 < factor < 1.001:
                after = dict(tree_flatten(model.parameters()))
                moved = transform(before, after, step) if transform else after
                put(model, {name: _between(before[name], moved[name], factor) for name in moved})
            if step + 1 in at and measure is not None:
                run.points.append((step + 1, *self.score(model, measure)))
            if patience and not np.isfinite(run.losses[-1]):
                break
        return run

    @cached_property
    def schedule(self) -> Schedule:
        return read_schedule(self.optimizer())

    def score(self, model: nn.Module, batch: HostBatch) -> tuple[float, float]:
        """Loss in nats per real token and accuracy, in evaluation mode; the mode is put back."""
        training = model.training
        model.eval()
        rows = max(1, _EVALUATED // (batch.shape[1] * self.subject.vocab_size))
        nats = hits = tokens = 0.0
        for start in range(0, batch.shape[0], rows):
            part = batch.rows(slice(start, start + rows)).device()
            losses, right = token_losses(self.logits(model, part.inputs), part.targets)
            real = np.array(part.mask) > 0
            nats += float(np.array(losses)[real].sum())
            hits += float(np.array(right)[real].sum())
            tokens += float(real.sum())
        model.train(training)
        return nats / max(tokens, 1), hits / max(tokens, 1)

    def gradients(self, model: nn.Module, batch: HostBatch) -> dict[str, mx.array]:
        """Gradients of our own masked mean cross-entropy by parameter path, evaluated."""
        device = batch.device()
        with self.calling("the gradient of model(tokens)"):
            gradients = nn.value_and_grad(model, lambda m: masked_mean(m, device))(model)[1]
            flat = {name: g for name, g in tree_flatten(gradients) if isinstance(g, mx.array)}
            mx.eval(flat)
        return flat

    def noisy(self, seed: int = 0, amount: float = 1.0) -> nn.Module:
        """A fresh model with noise on all floating parameters, so that zero-initialised ones hide nothing."""
        model = self.model()
        rng = np.random.default_rng((self.seed, seed))
        changed = {}
        for name, array in tree_flatten(model.parameters()):
            if not mx.issubdtype(array.dtype, mx.floating) or array.size == 0:
                continue
            if not bool(mx.all(mx.abs(array.astype(mx.float32)) < 1e3)):
                continue  # a mask kept as a parameter, or broken weights
            scale = amount * (0.1 if array.ndim < 2 else 1 / np.sqrt(array.shape[-1]))
            noise = mx.array(rng.standard_normal(array.shape, dtype=np.float32) * np.float32(scale))
            changed[name] = (array.astype(mx.float32) + noise).astype(array.dtype)
        put(model, changed)
        return model


def token_losses(logits: mx.array, targets: mx.array) -> tuple[mx.array, mx.array]:
    """Negative log-probability of each target in nats and whether the argmax hits it; [B, T] each."""
    logits = logits.astype(mx.float32)
    chosen = mx.take_along_axis(logits, targets[..., None], axis=-1).squeeze(-1)
    return mx.logsumexp(logits, axis=-1) - chosen, mx.argmax(logits, axis=-1) == targets


def masked_mean(model: nn.Module, batch) -> mx.array:
    """Mean cross-entropy of real tokens: the loss of a subject that brings none."""
    out = model(batch.inputs)
    losses, _ = token_losses(out[0] if isinstance(out, (tuple, list)) else out, batch.targets)
    mask = (batch.mask > 0).astype(mx.float32)
    return (losses * mask).sum() / mx.maximum(mask.sum(), 1)


def put(model: nn.Module, arrays: dict[str, mx.array]) -> None:
    """Replace parameters by path."""
    model.update(tree_unflatten(list(arrays.items())))
    mx.eval(model.parameters())


def _between(before: mx.array, after: mx.array, factor: float) -> mx.array:
    if not mx.issubdtype(before.dtype, mx.floating):
        return after
    old, new = before.astype(mx.float32), after.astype(mx.float32)
    return (old + factor * (new - old)).astype(before.dtype)


def _plain(value):
    if isinstance(value, (mx.array, np.generic)):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value
