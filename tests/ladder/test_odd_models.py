"""Models with parameters and modules that are sound, and unlike most."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
import tiny

from mlxstories.ladder import Subject, diagnose
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.gradients import dead

LONG = 40


class Identity(tiny.Tiny):
    """Its inner layer starts as the identity, which has two values, as a mask has."""

    def __init__(self):
        super().__init__()
        self.mix.weight = mx.eye(16)


class Keeps(tiny.Tiny):
    """Holds a further array in a public attribute."""

    def __init__(self, array: mx.array):
        super().__init__()
        self.kept = array


class Penalty(nn.Module):
    """Two matrices, and one number for all that it is given."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(16, 16), nn.Linear(16, 16)

    def __call__(self, x):
        return self.down(mx.tanh(self.up(x))).square().mean()


class Gain(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = mx.ones(16)

    def __call__(self, x):
        return self.gain * x


class OneLength(tiny.Tiny):
    """Its positions are those of whole rows, not cut to what it is given."""

    def __init__(self):
        super().__init__()
        self.places = mx.random.normal((LONG, 16))

    def __call__(self, tokens):
        x = self.embed(tokens) + self.places
        ages = mx.arange(LONG)[:, None] - mx.arange(LONG)[None]
        weights = mx.where(ages >= 0, mx.exp(-ages.astype(mx.float32)), 0)
        return self.head(x + mx.tanh(self.mix(weights @ x)))


class With(tiny.Tiny):
    """Calls a module on one number, or has it return one."""

    def __init__(self, extra: nn.Module):
        super().__init__()
        self.extra = extra

    def __call__(self, tokens):
        logits = super().__call__(tokens)
        if isinstance(self.extra, Penalty):
            return logits, self.extra(self.embed(tokens))
        return self.extra(mx.array(1.0)).mean() * logits


def with_penalty(model, batch):
    out = model(batch.inputs)
    logits, penalty = out if isinstance(out, tuple) else (out, 0.0)
    return nn.losses.cross_entropy(logits, batch.targets).mean() + 0.01 * penalty


@pytest.mark.parametrize(
    "model",
    [
        Identity,
        lambda: Keeps(mx.zeros((0, 4))),
        lambda: Keeps(mx.zeros((tiny.V, 0))),
        lambda: With(Penalty()),
        lambda: With(Gain()),
    ],
    ids=["identity", "no rows", "no columns", "module to a number", "module of a number"],
)
def test_an_odd_model_is_examined_and_sound(model):
    subject = tiny.subject(
        model=model, loss=with_penalty, optimizer=lambda: optim.AdamW(1e-2, bias_correction=True)
    )
    assert [f for f in diagnose(subject, rungs=["init", "sweep"]).findings if f.severity == "error"] == []


def test_a_model_that_takes_whole_rows_only_is_examined_by_these():
    def long(seed):
        ids = np.random.default_rng(seed).integers(0, tiny.V, (16, LONG + 1))
        return ((mx.array(ids[i : i + 4, :-1]), mx.array(ids[i : i + 4, 1:])) for i in range(0, 16, 4))

    subject = Subject(model=OneLength, vocab_size=tiny.V, train_batches=long)
    diagnosis = diagnose(subject, rungs=["init"])
    assert [f for f in diagnosis.findings if f.severity == "error"] == []


def test_a_table_of_whole_numbers_is_no_dead_weight():
    assert dead(Bench(tiny.subject(model=lambda: Keeps(mx.arange(8))))) == []
