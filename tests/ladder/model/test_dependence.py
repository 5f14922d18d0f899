"""Which logits depend on which tokens, also where noise has to make weights count."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten
from tiny import T, V, WithMask, batches, errors_at_init, found, subject

from mlxstories.findings import WARNING
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.dependence import dependence
from mlxstories.ladder.checks.init.leaks import LIMITS


@pytest.mark.parametrize("future", [0.0, 1e-3, 1.0])
def test_a_leak_is_seen_as_far_as_it_goes(future):
    bench = Bench(subject(model=lambda: WithMask(future)), 0)
    view = dependence(bench, bench.noisy(0), seed=0)
    assert (view.future > LIMITS["rounding"].value) == (future > 0)
    assert view.rows <= LIMITS["rounding"].value
    assert min(view.own, view.past) > 1e-3


class Packed(WithMask):
    """Texts begin with id 0, which pads rows too, and see no other."""

    def __init__(self, sees_past: bool):
        super().__init__()
        if not sees_past:
            self.mask = mx.eye(T)

    def __call__(self, tokens):
        x, length = self.embed(tokens), tokens.shape[1]
        text = mx.cumsum((tokens == 0).astype(mx.int32), axis=1)
        weights = self.mask[:length, :length] * (text[:, :, None] == text[:, None, :])
        return self.head(x + mx.tanh(self.mix(weights @ x / length)))


@pytest.mark.parametrize("sees_past", [True, False])
def test_padding_that_sees_nothing_is_no_blindness(sees_past):
    def short(seed):
        for inputs, targets, _ in batches(seed):
            real = mx.arange(T) < 5
            inputs = mx.where(real, mx.maximum(inputs, 1), 0)
            yield inputs, mx.where(real, targets, 0), mx.broadcast_to(real, inputs.shape)

    bench = Bench(subject(model=lambda: Packed(sees_past), train_batches=short), 0)
    view = dependence(bench, bench.noisy(0), seed=0)
    assert view.own > 1e-3 and (view.past > 1e-3) == sees_past


@pytest.mark.parametrize("freeze", [False, True], ids=["as MLX takes it", "frozen"])
@pytest.mark.parametrize("future", [0.0, 1.0])
def test_a_mask_kept_as_a_parameter_gets_no_noise(freeze, future):
    def model():
        made = WithMask()
        if future:
            made.mask = mx.ones_like(made.mask)
        if freeze:
            made.freeze(keys=["mask"])
        return made

    bench = Bench(subject(model=model), 0)
    fresh, noisy = (dict(tree_flatten(m.parameters())) for m in (bench.model(), bench.noisy()))
    if freeze or not future:
        assert mx.array_equal(fresh["mask"], noisy["mask"])
    assert not mx.array_equal(fresh["mix.weight"], noisy["mix.weight"])
    assert ("future-leak" in errors_at_init(model=model)) == bool(future)


def test_noise_leaves_frozen_weights_and_running_statistics_alone():
    class Normed(WithMask):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm(16)
            self.embed.freeze()

    bench = Bench(subject(model=Normed), 0)
    fresh, noisy = (dict(tree_flatten(m.parameters())) for m in (bench.model(), bench.noisy()))
    moved = {n for n in fresh if not mx.array_equal(fresh[n], noisy[n])}
    assert moved == {"mix.weight", "mix.bias", "head.weight", "head.bias", "norm.weight", "norm.bias"}
    everything = dict(tree_flatten(bench.noisy(frozen=True).parameters()))
    assert not mx.array_equal(fresh["embed.weight"], everything["embed.weight"])


class Decaying(nn.Module):
    """Each channel is a sum over states that fade; noise that is added to their rates would have some of them grow."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(V, 16), nn.Linear(16, V)
        self.rate = mx.broadcast_to(-mx.exp(mx.linspace(-7, -2, 16)), (16, 16))

    def __call__(self, tokens):
        x, state, seen = self.embed(tokens), 0, []
        for t in range(tokens.shape[1]):
            state = mx.exp(self.rate) * state + x[:, t, :, None]
            seen.append(state.sum(axis=-1))
        return self.head(mx.stack(seen, axis=1))


def test_noise_leaves_a_negative_rate_of_decay_negative():
    rates = [m.rate for m in (Decaying(), Bench(subject(model=Decaying), 0).noisy(0))]
    assert all(bool((rate < 0).all()) for rate in rates)
    assert not mx.array_equal(*rates)


class Bigram(nn.Module):
    """The first model of many lessons: a row of a table for each token, perhaps with a place and a layer upon it."""

    def __init__(self, tables=1):
        super().__init__()
        self.table = nn.Embedding(V, V if tables == 1 else 16)
        if tables == 2:
            self.places, self.head = nn.Embedding(64, 16), nn.Linear(16, V)

    def __call__(self, tokens):
        x = self.table(tokens)
        return self.head(x + self.places(mx.arange(tokens.shape[1]))) if "head" in self else x


@pytest.mark.parametrize("tables", [1, 2])
def test_a_bigram_may_be_meant(tables):
    told = found("init", model=lambda: Bigram(tables))
    assert [(f.code, f.severity) for f in told if "blind" in f.code] == [("input-blind", WARNING)]


class RoundedByRow(WithMask):
    """Rows of a batch that are rounded differently, as kernels do, coarsely enough to be seen."""

    def __call__(self, tokens):
        logits = super().__call__(tokens)
        return logits + 1e-4 * mx.arange(len(tokens))[:, None, None]


@pytest.mark.parametrize(("future", "low", "high"), [(0.0, 0.0, 0.0), (1e-3, 2e-5, 1.0)])
def test_another_rounding_in_another_row_is_no_later_token(future, low, high):
    bench = Bench(subject(model=lambda: RoundedByRow(future)), seed=0)
    future_seen = dependence(bench, bench.model(0), seed=0).future
    assert low <= future_seen <= high
