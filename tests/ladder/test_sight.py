"""What a model sees, and what of it can be trained: dependence of logits, noise on weights, frozen parameters."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten
from tiny import T, V, batches

from mlxstories.findings import ERROR, WARNING, Finding
from mlxstories.ladder import Subject, diagnose
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.arrays import is_pattern
from mlxstories.ladder.bench.model.dependence import dependence
from mlxstories.ladder.checks.init.leaks import LIMITS


class Tiny(nn.Module):
    """Embedding, an average of the past, a head; the mask is one of MLX's parameters."""

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


def subject(**fields) -> Subject:
    return Subject(**{"model": Tiny, "vocab_size": V, "train_batches": batches, **fields})


def findings(**fields) -> list[Finding]:
    """Of the rung."""
    found = diagnose(subject(**fields), rungs=["init"])
    return [*found.findings, *found.consequences]


def codes(**fields) -> set[str]:
    """Errors of the rung."""
    return {f.code for f in findings(**fields) if f.severity == ERROR}


@pytest.mark.parametrize("future", [0.0, 1e-3, 1.0])
def test_a_leak_is_seen_as_far_as_it_goes(future):
    bench = Bench(subject(model=lambda: Tiny(future)), 0)
    view = dependence(bench, bench.noisy(0), seed=0)
    assert (view.future > LIMITS["rounding"].value) == (future > 0)
    assert view.rows <= LIMITS["rounding"].value
    assert min(view.own, view.past) > 1e-3


class Packed(Tiny):
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
        made = Tiny()
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
    assert ("future-leak" in codes(model=model)) == bool(future)


def test_noise_leaves_frozen_weights_and_running_statistics_alone():
    class Normed(Tiny):
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


def test_masks_are_told_from_weights():
    place = mx.arange(12)
    decay = mx.where(place[:, None] >= place, 0.9 ** (place[:, None] - place).astype(mx.float32), 0.0)
    for mask in (mx.tri(12), decay, decay.T, mx.where(mx.tri(12) > 0, 0.0, -100.0)[None]):
        assert is_pattern(mask)
    for weights in (
        mx.random.normal((12, 12)),
        mx.zeros((12, 12)),
        mx.random.normal((12, 3)),
        mx.ones((12,)),
    ):
        assert not is_pattern(weights)


@pytest.mark.parametrize("shared", [False, True], ids=["fresh models", "one model"])
@pytest.mark.parametrize("frozen", ["mix", "embed", None])
def test_frozen_layers_are_found_also_where_one_model_is_handed_out(frozen, shared):
    class Wide(Tiny):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(V, 16)
            self.mask = mx.tri(T)
            angles = np.arange(T)[:, None] * 10000.0 ** -(np.arange(8) / 8)
            self.table = mx.array(np.concatenate([np.sin(angles), np.cos(angles)], axis=1), mx.float32)
            self.freeze(keys=["mask", "table"], recurse=False)
            if frozen:
                self[frozen].freeze()

        def __call__(self, tokens):
            return super().__call__(tokens) + 0 * self.table.sum()

    one = Wide()
    model = (lambda: one) if shared else Wide
    assert Bench(subject(model=model), 0).hands_out_one_model is shared
    assert ("frozen-parameters" in codes(model=model)) == bool(frozen)


def test_what_was_learned_and_frozen_is_no_noise():
    learned = Tiny()
    rng = np.random.default_rng(0)
    spikes = 0.3 * rng.standard_normal((16, 2)) @ rng.standard_normal((2, 16))
    learned.mix.weight = learned.mix.weight + mx.array(spikes.astype(np.float32))
    learned.mix.freeze()
    assert "frozen-parameters" not in codes(model=lambda: learned)


def test_a_frozen_model_that_knows_something_is_no_noise():
    trained = Tiny()
    trained.mask = mx.tri(T)
    optimizer = optim.Adam(1e-2)

    def loss(model, batch):
        return nn.losses.cross_entropy(model(batch.inputs), batch.targets, reduction="mean")

    for batch in batches(0, 60):
        _, gradients = nn.value_and_grad(trained, loss)(trained, batch)
        optimizer.update(trained, gradients)
        mx.eval(trained.parameters(), optimizer.state)
    trained.freeze()
    trained.head.unfreeze()
    assert "frozen-parameters" not in codes(model=lambda: trained)


def test_frozen_zeros_are_not_taken_for_blindness():
    class Gated(Tiny):
        def __init__(self):
            super().__init__()
            self.mix.weight = mx.zeros((16, 16))
            self.mix.freeze()
            self.embed.freeze()

    found = codes(model=Gated)
    assert "frozen-parameters" in found and "input-blind" not in found


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
    found = findings(model=lambda: Bigram(tables))
    assert [(f.code, f.severity) for f in found if "blind" in f.code] == [("input-blind", WARNING)]


def test_a_model_without_anything_to_train_says_so():
    def model():
        mx.random.seed(0)  # pretrained, as it were: the same every time
        made = Tiny()
        made.freeze()
        return made

    assert "no-update" in codes(model=model)


class RoundedByRow(Tiny):
    """Rows of a batch that are rounded differently, as kernels do, coarsely enough to be seen."""

    def __call__(self, tokens):
        logits = super().__call__(tokens)
        return logits + 1e-4 * mx.arange(len(tokens))[:, None, None]


@pytest.mark.parametrize(("future", "low", "high"), [(0.0, 0.0, 0.0), (1e-3, 2e-5, 1.0)])
def test_another_rounding_in_another_row_is_no_later_token(future, low, high):
    bench = Bench(subject(model=lambda: RoundedByRow(future)), seed=0)
    found = dependence(bench, bench.model(0), seed=0).future
    assert low <= found <= high
