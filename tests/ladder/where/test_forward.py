"""The line of a model's call at which something is lost, left out or let through."""

from __future__ import annotations

import linecache

import mlx.core as mx
import mlx.nn as nn
import pytest
from tiny import Tiny, subject

from mlxstories.findings import ERROR, Finding
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.where import located
from mlxstories.ladder.where.calls import calls
from mlxstories.ladder.where.calls import steps as steps_of


class Drops(Tiny):
    """Its mixing is called for nothing: earlier tokens reach no logit."""

    def __call__(self, tokens):
        x = self.embed(tokens)
        self.mix(x)  # here
        return self.head(x)


def test_a_result_that_is_dropped_is_found_at_its_call():
    found = located(Bench(subject(model=Drops)), Finding("input-blind", ERROR, "init", "", where="model"))
    assert "# here" in linecache.getline(found.where["file"], found.where["line"])
    assert found.where["module"] == "mix"


class LeavesOut(Tiny):
    def __call__(self, tokens):
        x = self.embed(tokens)
        return self.head(x)  # here


class Bounded(Tiny):
    def __call__(self, tokens):
        x = self.embed(tokens)
        x = x + self.mix(x)
        x = self.head(x)
        return mx.tanh(x)  # here


class Turned(Tiny):
    """What the rotation returns is dropped."""

    def __init__(self):
        super().__init__()
        self.rope = nn.RoPE(16)

    def __call__(self, tokens):
        x = self.embed(tokens)
        self.rope(x)  # here
        x = x + self.mix(x)
        return self.head(x)


class Forgets(Tiny):
    """Its mixing leads to scores that are not read."""

    def __call__(self, tokens):
        x = self.embed(tokens)
        y = self.mix(x)
        y = mx.zeros(y.shape)  # here
        return self.head(x + y)


class Masked(Tiny):
    """Attention to everything, by a mask from elsewhere."""

    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def __call__(self, tokens):
        x = self.embed(tokens)
        mask = self.mask(x.shape[1])
        scores = x @ x.swapaxes(-1, -2) + mask  # used
        x = x + self.mix(mx.softmax(scores, axis=-1) @ x)
        return self.head(x)


def hides_nothing(length):
    earlier = mx.tril(mx.ones((length, length)))
    return mx.where(earlier >= 0, 0.0, -1e9)  # mask


def biased(length):
    """No mask: a bias of many values."""
    return -mx.abs(mx.arange(length)[:, None] - mx.arange(length)[None]) * 1.0


@pytest.mark.parametrize(
    ("model", "code", "where"),
    [
        (Bounded, "bounded-logits", "model"),
        (Turned, "without-effect", "model"),
        (Forgets, "dead-parameters", "mix.weight"),
    ],
)
def test_what_is_lost_is_found_where_it_is(model, code, where):
    found = located(Bench(subject(model=model)), Finding(code, ERROR, "init", "", where=where)).where
    near = [linecache.getline(found["file"], found["line"] - back) for back in (0, 1)]  # or after it
    assert "# here" in "".join(near)


@pytest.mark.parametrize(("mask", "mark"), [(hides_nothing, "mask"), (biased, "used")])
def test_a_mask_that_hides_nothing_is_found_where_it_is_made(mask, mark):
    bench = Bench(subject(model=lambda: Masked(mask)))
    found = located(bench, Finding("future-leak", ERROR, "init", "", where="model")).where
    assert f"# {mark}" in linecache.getline(found["file"], found["line"])


class Inner(nn.Module):
    def __call__(self, x):
        return x + 1.0


class CallsAHelper(Tiny):
    """What comes after the call of a module is none of its steps."""

    def __init__(self):
        super().__init__()
        self.inner = Inner()

    def __call__(self, tokens):
        return later(self.inner(self.head(self.embed(tokens))))


def later(logits):
    more = logits + 1.0
    return more - 1.0


def test_the_steps_of_a_call_end_with_it():
    model = CallsAHelper()
    call = next(call for call in calls(model, mx.array([[1, 2]])) if call.module is model.inner)
    assert {line.function for line, _ in steps_of(model, call, 0, mx.array([[1, 2]]))} == {"__call__"}


def test_a_module_that_is_never_called_is_missing_in_what_holds_it():
    finding = Finding("dead-parameters", ERROR, "init", "", where="mix.weight")
    found = located(Bench(subject(model=LeavesOut)), finding).where
    assert "# here" in linecache.getline(found["file"], found["line"]) and found["module"] == "mix"
