"""The same row again: a second time, elsewhere in a batch, cut short, in a second model."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from plain import given
from tiny import Placed, T, judged, subject

from mlxstories.faults import FAULTS
from mlxstories.faults.recipe import built_in
from mlxstories.findings import ERROR
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.consistency import Change, Repeats, repeats, rounds_inside

ASKED = {
    "not-repeatable": "output is repeatable",
    "batch-leak": "a row's place makes no difference",
    "length-dependent": "a prefix alone gives the same logits",
    "hidden-parameters": "the parameters are the model",
}


def asked(model, code: str) -> list[tuple[str, str]]:
    """Code and severity of what the check for a code says of a model."""
    return judged(ASKED[code], model=model)


class Calls(Placed):
    """Counts its calls and says so."""

    def __call__(self, tokens):
        self._calls = getattr(self, "_calls", 0) + 1
        return super().__call__(tokens) * self._calls


class LiveDropout(Placed):
    def embedded(self, tokens):
        x = super().embedded(tokens)
        return x * mx.random.bernoulli(0.8, x.shape)


class RowPlaces(Placed):
    def embedded(self, tokens):
        return self.embed(tokens) + self.place(mx.arange(tokens.shape[0]))[:, None]


class BatchSize(Placed):
    def __call__(self, tokens):
        return super().__call__(tokens) / tokens.shape[0]


class Rounded(Placed):
    """Hands on 8 bits of each entry; what is so near the edge of a step that the last bits of a float decide is taken
    up in rows of odd lengths and down in others, as sums are that are added up in another order."""

    def embedded(self, tokens):
        x = super().embedded(tokens)
        bits = 127 / mx.abs(x).max(axis=-1, keepdims=True)
        return mx.floor(x * bits + 1e-2 * (tokens.shape[1] % 2)) / bits


def test_a_step_that_a_last_bit_decides_is_no_dependence_on_the_length():
    assert rounds_inside(Bench(subject(model=Rounded), 0))
    assert not rounds_inside(Bench(subject(model=Placed), 0))
    assert asked(Rounded, "length-dependent") == []


class FromTheEnd(Placed):
    def embedded(self, tokens):
        return self.embed(tokens) + self.place(mx.arange(tokens.shape[1])[::-1])


class Closure(Placed):
    def __init__(self):
        super().__init__()
        hidden = nn.Linear(16, 16)
        self._also = lambda x: x + hidden(x)

    def embedded(self, tokens):
        return self._also(super().embedded(tokens))


@pytest.mark.parametrize(
    "model, code",
    [
        (Calls, "not-repeatable"),
        (LiveDropout, "not-repeatable"),
        (RowPlaces, "batch-leak"),
        (BatchSize, "batch-leak"),
        (FromTheEnd, "length-dependent"),
        (Closure, "hidden-parameters"),
    ],
)
def test_each_is_called_by_its_name(model, code):
    assert asked(model, code) == [(code, ERROR)]


@pytest.mark.parametrize("code", ASKED)
def test_a_sound_model_is_left_alone(code):
    assert asked(Placed, code) == []


class FixedTable(Placed):
    """A random table that is the same in every model."""

    def __init__(self):
        super().__init__()
        self._table = mx.array(np.random.default_rng(0).standard_normal((T, 16)).astype(np.float32))

    def embedded(self, tokens):
        return super().embedded(tokens) + self._table[: tokens.shape[1]]


class FullRowsOnly(Placed):
    def __call__(self, tokens):
        if tokens.shape[1] != T:
            raise ValueError("rows of 16 only")
        return super().__call__(tokens)


@pytest.mark.parametrize(
    "model, code", [(FixedTable, "hidden-parameters"), (FullRowsOnly, "length-dependent")]
)
def test_look_alikes_are_left_alone(model, code):
    assert asked(model, code) == []


def test_one_model_for_all_is_no_second_model():
    one = Placed()
    assert asked(lambda: one, "hidden-parameters") == []
    assert asked(lambda: one, "not-repeatable") == []


@pytest.mark.parametrize(
    "name",
    ["dropout-in-every-mode", "positions-of-rows", "positions-from-the-end", "layer-out-of-sight"],
)
def test_planted_faults_are_named_by_their_check(name):
    code = FAULTS[name].code
    assert judged(ASKED[code], Bench(built_in(fault=name))) == [(code, ERROR)]


@pytest.mark.parametrize(
    ("change", "full_precision", "failed"),
    [(5e-4, True, False), (0.01, True, True), (0.01, False, False), (0.5, False, True)],
)
def test_answers_that_vary_are_judged_by_the_precision(change, full_precision, failed):
    once, again = Change(0.0, 0.0), Change(change, change)
    verdict = given("output is repeatable", {repeats: Repeats(once, again, full_precision)})
    assert verdict.status == ("failed" if failed else "passed")
