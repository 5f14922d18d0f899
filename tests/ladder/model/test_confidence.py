"""How far apart logits can come to lie, against closed forms, and where they are cut off."""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny
from tiny import judged

from mlxstories.ladder import Subject
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.confidence import cut_off, flattest_scores, highest_confidence
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import CHECKS

V, T, D = 23, 8, 16


class Ended(nn.Module):
    """A sum of the tokens so far, whose logits end with a function."""

    def __init__(self, end):
        super().__init__()
        self.embed, self.head, self.norm = nn.Embedding(V, D), nn.Linear(D, V), nn.RMSNorm(D)
        self.end = end

    def __call__(self, tokens):
        return self.end(self.head(self.norm(mx.cumsum(self.embed(tokens), axis=1))))


def batches(seed):
    table = np.random.default_rng(seed).integers(0, V, (8, T + 1))
    return [(mx.array(table[:, :-1]), mx.array(table[:, 1:]))]


def asked(end):
    bench = Bench(Subject(model=lambda: Ended(end), vocab_size=V, train_batches=batches))
    checked = CHECKS["logits can be sure of a token"]
    return highest_confidence(bench), [
        draft.code for draft in checked.ask(bench, Gauges(checked.limits)).drafts
    ]


@pytest.mark.parametrize(
    ("end", "width"), [(mx.tanh, 2.0), (mx.sigmoid, 1.0), (lambda z: nn.relu6(z) / 3, 2.0)]
)
def test_what_is_squashed_is_never_sure(end, width):
    found, codes = asked(end)
    assert found.apart == pytest.approx(width, rel=1e-3)
    assert found.surest == pytest.approx(math.exp(width) / (math.exp(width) + V - 1), rel=1e-3)
    assert codes == ["bounded-logits"]


@pytest.mark.parametrize(
    "end",
    [
        lambda z: z,
        nn.relu,
        nn.log_softmax,
        lambda z: 10 * mx.tanh(z / 10),
        lambda z: mx.where(mx.arange(V) == 3, -mx.inf, z),
    ],
)
def test_what_has_room_is_not_accused(end):
    found, codes = asked(end)
    assert found.surest > 0.99
    assert codes == []


class EndedTiny(tiny.Tiny):
    """The tiny model, whose logits end with a function."""

    def __init__(self, end):
        super().__init__()
        self.end = end

    def __call__(self, tokens):
        return self.end(super().__call__(tokens))


def some_forbidden(logits):
    odd = (mx.arange(logits.shape[1])[:, None] + mx.arange(tiny.V)) % 3 == 0
    return mx.where(odd, -1e9, logits)


@pytest.mark.parametrize("end", [nn.relu, lambda z: -nn.relu(z), lambda z: mx.clip(z, -0.1, 0.1)])
def test_logits_that_are_cut_off_are_an_error(end):
    bench = Bench(tiny.subject(model=lambda: EndedTiny(end)))
    assert cut_off(bench).share > 0.2
    assert judged("logits run into no bound", bench) == [("bounded-logits", "error")]


@pytest.mark.parametrize(
    "end",
    [
        lambda z: z,
        nn.log_softmax,
        mx.tanh,
        lambda z: nn.leaky_relu(z, 0.3),
        lambda z: mx.where(mx.arange(tiny.V) < 3, -1e9, z),
        lambda z: mx.where(mx.arange(tiny.V) < 3, -mx.inf, z),
        some_forbidden,
    ],
)
def test_logits_that_are_bent_or_forbidden_are_not(end):
    assert judged("logits run into no bound", Bench(tiny.subject(model=lambda: EndedTiny(end)))) == []


class Attends(nn.Module):
    """One head, whose queries and keys have the length 1 if asked, and whose products are multiplied."""

    def __init__(self, times, unit, fused=False):
        super().__init__()
        self.embed, self.head = nn.Embedding(V, D), nn.Linear(D, V)
        self.q, self.k = nn.Linear(D, D), nn.Linear(D, D)
        self.times, self.unit, self.fused = times, unit, fused

    def __call__(self, tokens):
        x = self.embed(tokens)
        q, k = (
            a / mx.linalg.norm(a, axis=-1, keepdims=True) if self.unit else a for a in (self.q(x), self.k(x))
        )
        if self.fused:
            q, k, v = (a[:, None] for a in (q, k, x))
            return self.head(
                x + mx.fast.scaled_dot_product_attention(q, k, v, scale=self.times, mask="causal")[:, 0]
            )
        shown = mx.tri(x.shape[1], dtype=mx.bool_)
        return self.head(
            x + mx.softmax(mx.where(shown, q @ k.swapaxes(1, 2) * self.times, -mx.inf), axis=-1) @ x
        )


def of_scores(*how):
    bench = Bench(Subject(model=lambda: Attends(*how), vocab_size=V, train_batches=batches))
    return flattest_scores(bench), judged("attention can be sure of a token", bench)


@pytest.mark.parametrize("fused", [False, True])
def test_cosines_that_are_divided_besides_are_never_far_apart(fused):
    apart, found = of_scores(D**-0.5, True, fused)
    assert 0.1 < apart < 2 * D**-0.5 and found == [("extreme-scale", "error")]


@pytest.mark.parametrize(("times", "unit"), [(D**-0.5, False), (D**0.5, True), (10.0, True), (1e-3, False)])
def test_scores_that_grow_or_have_a_temperature_have_room(times, unit):
    assert of_scores(times, unit)[1] == []


def test_a_plain_mean_of_the_past_is_no_attention():
    assert of_scores(0.0, False) == (None, [])
