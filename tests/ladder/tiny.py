"""A tiny setup that learns, for tests of the ladder to break, and what is said of it."""

from __future__ import annotations

import inspect

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_map

from mlxstories.batch import Batch
from mlxstories.findings import ERROR, Finding
from mlxstories.ladder import Subject, diagnose
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.registry import CHECKS
from mlxstories.ladder.verdict import Verdict

V, T, B = 13, 16, 4


class Tiny(nn.Module):
    """Embedding, an average of the past (and of the future, as far as given), a head."""

    def __init__(self, future: float = 0.0):
        super().__init__()
        self.embed = nn.Embedding(V, 16)
        self.mix = nn.Linear(16, 16)
        self.head = nn.Linear(16, V)
        self.future = future

    def __call__(self, tokens):
        x = self.embed(tokens)
        ages = mx.arange(x.shape[1])[:, None] - mx.arange(x.shape[1])[None]
        weights = mx.where(ages >= 0, mx.exp(-ages.astype(mx.float32)), self.future)
        return self.head(x + mx.tanh(self.mix(weights @ x)))


class WithMask(nn.Module):
    """The same with equal weights for all of the past; the mask is one of MLX's parameters."""

    def __init__(self, future: float = 0.0):
        super().__init__()
        self.embed = nn.Embedding(V, 16)
        self.mix = nn.Linear(16, 16)
        self.head = nn.Linear(16, V)
        ages = mx.arange(T)[:, None] - mx.arange(T)[None]
        self.mask = mx.where(ages >= 0, 1.0, future)

    def __call__(self, tokens):
        x = self.embed(tokens)
        length = x.shape[1]
        weights = self.mask[:length, :length]
        return self.head(x + mx.tanh(self.mix(weights @ x / length)))


class Placed(nn.Module):
    """With a table of places, dropout, and methods that tests replace."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(V, 16)
        self.place = nn.Embedding(T, 16)
        self.mix = nn.Linear(16, 16)
        self.head = nn.Linear(16, V)
        self.dropout = nn.Dropout(0.5)

    def embedded(self, tokens):
        return self.embed(tokens) + self.place(mx.arange(tokens.shape[1]))

    def weights(self, length):
        return mx.tri(length)

    def __call__(self, tokens):
        x = self.dropout(self.embedded(tokens))
        length = x.shape[1]
        past = self.weights(length) @ x / mx.arange(1, length + 1)[:, None]
        return self.head(x + mx.tanh(self.mix(past)))


def batches(seed, count=8):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        rows = np.cumsum(rng.integers(1, 3, (B, T + 1)), axis=1) % V
        yield Batch(mx.array(rows[:, :-1]), mx.array(rows[:, 1:]), mx.ones((B, T)))


def uneven(seed):
    """Batches whose rows are of unequal length."""
    rng = np.random.default_rng(seed)
    for batch in range(6):
        rows = np.cumsum(rng.integers(1, 3, (B, T + 1)), axis=1) % V
        mask = (np.arange(T) < np.array([[T], [T], [T // 2], [1 + batch % 2]])).astype(np.float32)
        yield Batch(mx.array(rows[:, :-1]), mx.array(rows[:, 1:]), mx.array(mask))


def nats(model, batch):
    return nn.losses.cross_entropy(model(batch.inputs), batch.targets, reduction="mean")


def stepping(change=lambda gradients: gradients):
    def step(model, optimizer, batch):
        value, gradients = nn.value_and_grad(model, nats)(model, batch)
        optimizer.update(model, change(gradients))
        return value

    return step


def accumulating(take, factor=0.5):
    """Two micro-batches an update; ``take(index)`` says which half comes."""

    def step(model, optimizer, batch):
        half, total, values = len(batch.inputs) // 2, None, 0.0
        for index in range(2):
            start = take(index) * half
            part = Batch(*(a[start : start + half] for a in batch))
            value, gradients = nn.value_and_grad(model, nats)(model, part)
            values = values + factor * value
            total = gradients if total is None else tree_map(mx.add, total, gradients)
        optimizer.update(model, tree_map(lambda g: factor * g, total))
        return values

    return step


def masked(model, batch):
    losses = nn.losses.cross_entropy(model(batch.inputs), batch.targets)
    return (losses * batch.mask).sum() / batch.mask.sum()


def adamw(rate, **options):
    return lambda: optim.AdamW(rate, **{"bias_correction": True, **options})


def warm(updates: int, rate: float = 1e-2):
    """A schedule that rises to the rate and stays there."""
    rising = optim.linear_schedule(0.0, rate, updates)
    return optim.join_schedules([rising, lambda _: mx.array(rate)], [updates])


def subject(**fields) -> Subject:
    return Subject(**{"model": Tiny, "vocab_size": V, "train_batches": batches, **fields})


def ask(name: str, on: Bench | None = None, **fields) -> Verdict:
    """What a check says of a bench, or of the tiny setup with these fields."""
    on, check = on or Bench(subject(**fields)), CHECKS[name]
    with on.protected():
        return check.ask(on, check.gauges())


def told(verdict: Verdict) -> tuple[str, list[tuple[str, str]]]:
    """Its status, and (code, severity) of what it says."""
    return verdict.status, [(draft.code, draft.severity) for draft in verdict.drafts]


def judged(name: str, on: Bench | None = None, **fields) -> list[tuple[str, str]]:
    """(code, severity) of that."""
    return told(ask(name, on, **fields))[1]


def found(*rungs: str, **fields) -> list[Finding]:
    """What these rungs find in the tiny setup with these fields, consequences too."""
    diagnosis = diagnose(subject(**fields), rungs=rungs)
    return [*diagnosis.findings, *diagnosis.consequences]


def errors_at_init(**fields) -> set[str]:
    """Codes of the errors that the rung init finds in the tiny setup with these fields."""
    return {finding.code for finding in found("init", **fields) if finding.severity == ERROR}


def first(**fields) -> Finding:
    """What the rungs up to minimal find first."""
    return diagnose(subject(**fields), rungs=["data", "init", "minimal"]).findings[0]


def line_with(cls: type, mark: str) -> int:
    """The line of a class that has this mark, in its file."""
    lines, start = inspect.getsourcelines(cls)
    return start + next(i for i, text in enumerate(lines) if mark in text)
