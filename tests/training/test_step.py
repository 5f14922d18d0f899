"""The training step: exact accumulation, and randomness that depends on the seed alone."""

import dataclasses
from contextlib import nullcontext

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlxstories import batch as batch_module
from mlxstories.backend import kernels
from mlxstories.batch import Batch
from mlxstories.model import ModelConfig
from mlxstories.optim import OptimizerConfig, build_optimizer
from mlxstories.training.experiment import new_model
from mlxstories.training.losses import objective
from mlxstories.training.step import TrainStep

CONFIG = ModelConfig(vocab_size=50, dim=32, layers=2, heads=2, context=16)


def batch_with(lengths, seed=0):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(3, 50, (len(lengths), 17))
    mask = np.arange(16)[None] < np.array(lengths)[:, None]
    return Batch(
        mx.array(tokens[:, :-1].astype(np.int32)),
        mx.array(tokens[:, 1:].astype(np.int32)),
        mx.array(mask.astype(np.float32)),
    )


def trained(
    batches,
    *,
    steps=3,
    clip_norm=None,
    config=CONFIG,
    step_seed=lambda i: i,
    dtype=mx.float32,
    rate=0.1,
    momentum=0.95,
    norms=False,
):
    model = new_model(config, 0)
    optimizer = build_optimizer(
        OptimizerConfig(learning_rate=rate, name="sgd", momentum=momentum), lambda step: rate
    )
    step = TrainStep(model, optimizer, objective(config), clip_norm=clip_norm, dtype=dtype)
    model.train()
    results = [step(batches, step_seed(i), norms=norms) for i in range(steps)]
    return dict(tree_flatten(model.parameters())), results


def split(batch, *sizes):
    parts, start = [], 0
    for size in sizes:
        parts.append(Batch(*(array[start : start + size] for array in batch)))
        start += size
    return parts


@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_accumulation_is_the_large_batch_for_unequal_token_counts(clip_norm):
    batch = batch_with([16, 3, 1, 9, 0, 12])
    whole, one = trained([batch], clip_norm=clip_norm)
    accumulated, three = trained(split(batch, 2, 2, 2), clip_norm=clip_norm)
    for name, weights in whole.items():
        np.testing.assert_allclose(np.array(accumulated[name]), np.array(weights), rtol=2e-5, atol=2e-7)
    assert float(one[-1].tokens) == float(three[-1].tokens) == 41
    assert float(three[-1].nats) == pytest.approx(float(one[-1].nats), rel=1e-5)
    assert float(three[-1].grad_norm) == pytest.approx(float(one[-1].grad_norm), rel=1e-4)


@pytest.mark.parametrize("lengths", [[16, 3, 9], [1, 0]])
def test_an_update_without_clipping_follows_the_gradient_of_the_mean_loss(lengths):
    """Plain SGD's first update, against the gradient of MLX's own cross-entropy over real tokens."""
    batch = batch_with(lengths)
    model = new_model(CONFIG, 0)

    def mean(weights):
        model.update(weights)
        losses = nn.losses.cross_entropy(model(batch.inputs), batch.targets)
        return (losses * batch.mask).sum() / batch.mask.sum()

    before = model.trainable_parameters()
    gradients = dict(tree_flatten(mx.grad(mean)(before)))
    after, _ = trained([batch], steps=1, momentum=0.0)
    for name, weights in tree_flatten(before):
        np.testing.assert_allclose(
            np.array(after[name]), np.array(weights - 0.1 * gradients[name]), rtol=2e-5, atol=2e-7
        )


def test_the_figures_of_an_update_are_sums_over_real_tokens_before_it():
    batch = batch_with([16, 3, 9])
    logits = np.array(new_model(CONFIG, 0)(batch.inputs), dtype=np.float64)
    _, (result,) = trained(split(batch, 1, 2), steps=1)
    real, targets = np.array(batch.mask) > 0, np.array(batch.targets)
    nats = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    assert float(result.nats) == pytest.approx(nats[real].sum(), rel=1e-5)
    assert float(result.tokens) == 28
    assert float(result.hits) == (logits.argmax(-1) == targets)[real].sum()


def test_without_a_real_token_nothing_changes():
    after, _ = trained([batch_with([0, 0])], steps=1, momentum=0.0)
    for name, weights in tree_flatten(new_model(CONFIG, 0).parameters()):
        assert mx.array_equal(after[name], weights)


def test_streams_share_the_rows_of_a_large_microbatch(monkeypatch):
    batch = batch_with([16, 3, 1, 9, 0, 12])
    whole, one = trained([batch])
    monkeypatch.setattr(batch_module, "SHARE", 1)
    monkeypatch.setattr(
        kernels, "streams", lambda: [mx.default_stream(mx.cpu), *(mx.new_stream(mx.cpu),) * 3]
    )
    shared, three = trained([batch])
    for name, weights in whole.items():
        np.testing.assert_allclose(np.array(shared[name]), np.array(weights), rtol=2e-5, atol=2e-7)
    assert float(three[-1].nats) == pytest.approx(float(one[-1].nats), rel=1e-5)


def test_averaging_microbatch_means_would_be_another_gradient():
    """The test above can fail: equal weights for unequal microbatches give other weights."""
    batch = batch_with([16, 3, 1, 9, 0, 12])
    whole, _ = trained([batch], steps=1)
    unequal, _ = trained(split(batch, 1, 5)[:1], steps=1)
    assert any(not np.allclose(np.array(unequal[name]), np.array(w), atol=1e-6) for name, w in whole.items())


def test_clipping_bounds_the_update():
    batch = batch_with([16] * 4)
    before = dict(tree_flatten(new_model(CONFIG, 0).parameters()))
    after, _ = trained([batch], steps=1, clip_norm=1e-3)
    moved = np.sqrt(sum(float(((after[n] - before[n]) ** 2).sum()) for n in before))
    assert moved == pytest.approx(0.1 * 1e-3, rel=1e-3)


@pytest.mark.parametrize("place", [nullcontext, kernels.as_on_gpu])
def test_norms_are_those_of_the_parameters_and_change_nothing_else(place):
    """Plain SGD moves each parameter by its gradient times the rate and what clips it."""
    batch, before = batch_with([16] * 4), dict(tree_flatten(new_model(CONFIG, 0).parameters()))
    options = {"steps": 1, "momentum": 0.0, "clip_norm": 1e-2, "rate": 1e3}
    with place():
        after, (asked,) = trained([batch], **options, norms=True)
        same, (plain,) = trained([batch], **options)
    assert plain.norms is None and plain.grad_norm.item() == asked.grad_norm.item() > 1e-2
    assert all(mx.array_equal(after[name], same[name]) for name in before)
    moved = [np.linalg.norm(np.array(after[name] - before[name])) for name in before]
    norms = np.array(asked.norms)
    np.testing.assert_allclose(moved, 1e3 * norms * 1e-2 / asked.grad_norm.item(), rtol=1e-3)
    assert np.linalg.norm(norms) == pytest.approx(asked.grad_norm.item(), rel=1e-5)


def test_dropout_is_a_function_of_the_step_seed():
    config = ModelConfig(vocab_size=50, dim=32, layers=2, heads=2, context=16, dropout=0.5)
    batch = batch_with([16] * 4)
    first, _ = trained([batch], config=config)
    mx.random.normal((7,))  # other use of the generator must not matter
    again, _ = trained([batch], config=config)
    other, _ = trained([batch], config=config, step_seed=lambda i: i + 100)
    assert all(bool((first[name] == again[name]).all()) for name in first)
    assert not all(bool((first[name] == other[name]).all()) for name in first)


@pytest.mark.parametrize("parts", [{}, {"feed_forward": "gelu", "positions": "sinusoidal", "norm": "layer"}])
def test_bfloat16_computes_in_it_and_keeps_float32_weights(parts):
    config = dataclasses.replace(CONFIG, **parts)
    batch = batch_with([16, 9, 16, 4])
    exact, expected = trained([batch], config=config)
    low, got = trained([batch], config=config, dtype=mx.bfloat16)
    assert all(weights.dtype == mx.float32 for weights in low.values())
    start = dict(tree_flatten(new_model(config, 0).parameters()))
    for name in exact:
        moved, wanted = np.array(low[name] - start[name]), np.array(exact[name] - start[name])
        assert np.linalg.norm(moved - wanted) < 0.05 * np.linalg.norm(wanted), name
        assert (moved != wanted).any()
    for ours, theirs in zip(got, expected, strict=True):
        assert float(ours.nats) == pytest.approx(float(theirs.nats), rel=5e-3)
        assert float(ours.grad_norm) == pytest.approx(float(theirs.grad_norm), rel=0.02)


def test_small_updates_reach_the_weights_of_a_bfloat16_run():
    """A rate at which a bfloat16 weight would round every update away."""
    before = dict(tree_flatten(new_model(CONFIG, 0).parameters()))
    after, _ = trained([batch_with([16] * 4)], rate=1e-5, dtype=mx.bfloat16)
    name = "blocks.0.feed_forward.up.weight"
    assert ((after[name] != before[name]).sum() > 0.5 * before[name].size).item()
