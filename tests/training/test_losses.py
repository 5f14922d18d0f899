"""Cross-entropy against PyTorch and closed forms, and the encoder's corruption."""

import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlxstories.backend import kernels
from mlxstories.batch import Batch
from mlxstories.model import ModelConfig, Transformer
from mlxstories.training.losses import (
    corrupt,
    cross_entropy,
    fused_next_token_metrics,
    next_token,
    next_token_by_logits,
    next_token_metrics,
    objective,
    target_nats,
)


def example(scale=3.0):
    rng = np.random.default_rng(5)
    logits = (scale * rng.standard_normal((3, 7, 19))).astype("f4")
    mask = (rng.random((3, 7)) < 0.7).astype("f4")
    return logits, rng.integers(0, 19, (3, 7)).astype("i4"), mask


def in_float64(logits, targets, mask, smoothing):
    """Sum of nats and its gradient, from the definition."""
    logits = logits.astype("f8")
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    wanted = (1 - smoothing) * np.eye(logits.shape[-1])[targets] + smoothing / logits.shape[-1]
    nats = -(wanted * log_p).sum(-1) * mask
    return nats.sum(), (np.exp(log_p) - wanted) * mask[..., None]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("compiled", [False, True])
def test_value_and_gradient_equal_the_definition(smoothing, compiled):
    logits, targets, mask = example()

    def nats(x):
        return cross_entropy(x, mx.array(targets), mx.array(mask), smoothing)[0]

    differentiate = mx.value_and_grad(nats)
    value, gradient = (mx.compile(differentiate) if compiled else differentiate)(mx.array(logits))
    expected, expected_gradient = in_float64(logits, targets, mask, smoothing)
    assert value.item() == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(np.array(gradient), expected_gradient, atol=1e-6)
    assert cross_entropy(mx.array(logits), mx.array(targets), mx.array(mask))[1].item() == mask.sum()


@pytest.mark.parametrize("compiled", [False, True])
def test_scores_of_evaluation_equal_the_definition(monkeypatch, compiled):
    monkeypatch.setattr(kernels, "_SMALL", 1)  # take the CPU's own exponential
    logits, targets, _ = example(scale=20.0)
    score = mx.compile(target_nats) if compiled else target_nats
    nats, hits = score(mx.array(logits), mx.array(targets))
    wide = logits.astype("f8")
    right = np.take_along_axis(wide, targets[..., None], -1).squeeze(-1)
    np.testing.assert_allclose(np.array(nats), np.logaddexp.reduce(wide, -1) - right, rtol=1e-6, atol=2e-6)
    np.testing.assert_array_equal(np.array(hits), logits.argmax(-1) == targets)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_value_and_gradient_equal_pytorchs(smoothing):
    torch = pytest.importorskip("torch")
    logits, targets, mask = example()
    x = torch.tensor(logits, requires_grad=True)
    losses = torch.nn.functional.cross_entropy(
        x.flatten(0, 1), torch.tensor(targets).long().flatten(), reduction="none", label_smoothing=smoothing
    )
    total = (losses * torch.tensor(mask).flatten()).sum()
    total.backward()
    value, gradient = mx.value_and_grad(
        lambda x: cross_entropy(x, mx.array(targets), mx.array(mask), smoothing)[0]
    )(mx.array(logits))
    assert value.item() == pytest.approx(total.item(), rel=1e-6)
    np.testing.assert_allclose(np.array(gradient), x.grad.numpy(), atol=1e-6)


def test_large_logits_stay_finite_and_exact():
    logits = mx.array([[[1000.0, 0.0, -1000.0], [-1000.0, 1000.0, 1000.0]]])
    ones = mx.ones((1, 2))
    nats, _ = cross_entropy(logits, mx.array([[1, 1]]), ones)
    assert nats.item() == pytest.approx(1000 + math.log(2), rel=1e-6)
    gradient = mx.grad(lambda x: cross_entropy(x, mx.array([[1, 1]]), ones)[0])(logits)
    np.testing.assert_allclose(np.array(gradient), [[[1, -1, 0], [0, -0.5, 0.5]]], atol=1e-6)


def test_nothing_real_costs_nothing():
    logits, targets, mask = (mx.array(x) for x in example())
    value, gradient = mx.value_and_grad(lambda x: cross_entropy(x, targets, mask * 0)[0])(logits)
    assert value.item() == 0 and mx.abs(gradient).max().item() == 0


def test_a_masked_cell_does_not_spoil_the_sum():
    logits, targets, mask = (mx.array(x) for x in example())
    expected = cross_entropy(logits, targets, mask)[0].item()
    spoilt = mx.where(mask[..., None] > 0, logits, mx.inf)
    assert cross_entropy(spoilt, targets, mask)[0].item() == pytest.approx(expected)


def test_a_masked_row_does_not_spoil_the_sums_of_chunks():
    _, targets, mask = (mx.array(x) for x in example())
    rng = np.random.default_rng(6)
    features, weight = (mx.array(rng.standard_normal(s).astype("f4")) for s in ((3, 7, 5), (19, 5)))
    spoilt = mx.where(mask[..., None] > 0, features, mx.inf)
    expected, got = (fused_next_token_metrics(x, weight, targets, mask) for x in (features, spoilt))
    assert [x.item() for x in got] == [x.item() for x in expected]


def test_hits_are_argmax_over_real_tokens():
    logits, targets, mask = example()
    _, _, hits, _ = next_token_metrics(mx.array(logits), mx.array(targets), mx.array(mask))
    assert hits.item() == ((logits.argmax(-1) == targets) * mask).sum()
    flat = mx.zeros((1, 4, 19))  # equal logits are no knowledge
    assert next_token_metrics(flat, mx.array([[3, 4, 5, 6]]), mx.ones((1, 4)))[2].item() == 0


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("rows", [1, 4, 100])
def test_chunks_give_the_sums_and_gradients_of_the_whole(monkeypatch, smoothing, rows):
    monkeypatch.setattr(kernels, "chunk_elements", lambda: 19 * rows)
    _, targets, mask = (mx.array(x) for x in example())
    rng = np.random.default_rng(6)
    features, weight = (mx.array(rng.standard_normal(s).astype("f4")) for s in ((3, 7, 5), (19, 5)))

    def plain(features, weight):
        return next_token_metrics(features @ weight.T, targets, mask, smoothing)

    def fused(features, weight):
        return fused_next_token_metrics(features, weight, targets, mask, smoothing)

    for expected, got in zip(plain(features, weight), fused(features, weight), strict=True):
        assert got.item() == pytest.approx(expected.item(), rel=1e-6)
    expected, got = (
        mx.compile(mx.grad(lambda x, w, f=f: 3 * f(x, w)[0], argnums=(0, 1)))(features, weight)
        for f in (plain, fused)
    )
    for theirs, ours in zip(expected, got, strict=True):
        np.testing.assert_allclose(np.array(ours), np.array(theirs), atol=2e-5)


def test_bfloat16_logits_are_summed_in_float32():
    logits, targets, mask = (mx.array(x) for x in example())
    low = logits.astype(mx.bfloat16)
    nats, _ = cross_entropy(low, targets, mask)
    assert nats.dtype == mx.float32
    expected, _ = in_float64(np.array(low.astype(mx.float32)), np.array(targets), np.array(mask), 0.0)
    assert nats.item() == pytest.approx(expected, rel=1e-6)


def test_corruption_follows_the_recipe():
    tokens = mx.random.randint(3, 5000, (200, 500), key=mx.random.key(1))
    tokens = mx.where(mx.arange(500) % 50 == 0, 0, tokens)
    mask = mx.ones(tokens.shape) * (mx.arange(500) < 450)
    corrupted, chosen = (np.array(x) for x in corrupt(tokens, mask, mx.random.key(2), 5000))
    tokens, mask = np.array(tokens), np.array(mask)
    assert (corrupted[chosen == 0] == tokens[chosen == 0]).all()
    assert not chosen[tokens == 0].any() and not chosen[:, 450:].any()
    ordinary = (tokens >= 3) & (mask > 0)
    assert chosen[ordinary].mean() == pytest.approx(0.15, abs=0.005)
    changed = corrupted[chosen > 0]
    assert (changed == 2).mean() == pytest.approx(0.8, abs=0.01)
    assert (changed == tokens[chosen > 0]).mean() == pytest.approx(0.1, abs=0.01)
    assert changed.min() == 2 and changed.max() < 5000


@pytest.mark.parametrize("arch", ["decoder", "encoder"])
def test_objectives(arch):
    config = ModelConfig(23, dim=16, layers=1, heads=2, context=32, arch=arch, separator=0)
    mx.random.seed(3)
    model = Transformer(config)
    inputs = mx.random.randint(3, 23, (4, 32))
    batch = Batch(inputs, mx.roll(inputs, -1, 1), mx.ones((4, 32)))
    run = objective(config)
    first, second, other = (run(model, batch, mx.random.key(k)) for k in (1, 1, 2))
    assert [x.item() for x in first] == [x.item() for x in second]
    assert run(model, batch, mx.random.key(1), 0.1)[3].item() == pytest.approx(first[3].item(), rel=1e-6)
    minimised, tokens, hits, nats = (x.item() for x in first)
    assert minimised == pytest.approx(nats, rel=1e-6)  # no smoothing unless it is asked for
    assert nats / tokens == pytest.approx(math.log(23), abs=0.3) and 0 <= hits <= tokens
    if arch == "decoder":
        assert tokens == 128 and first[0].item() == other[0].item()
    else:
        assert 5 <= tokens <= 40 and first[0].item() != other[0].item()
    _, gradients = nn.value_and_grad(model, lambda m: run(m, batch, mx.random.key(1), 0.1)[0])(model)
    assert mx.abs(gradients["embed"]["weight"]).max().item() > 0


def test_a_model_of_another_kind_is_measured_by_its_logits():
    class Wrapped(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def __call__(self, tokens):
            return self.inner(tokens)

    mx.random.seed(3)
    model = Transformer(ModelConfig(23, dim=16, layers=1, heads=2, context=32, separator=0))
    inputs = mx.random.randint(3, 23, (4, 32))
    batch = Batch(inputs, mx.roll(inputs, -1, 1), mx.arange(32)[None] < mx.array([[32], [9], [1], [20]]))
    for smoothing in ((), (None, 0.1)):
        expected = [x.item() for x in next_token(model, batch, *smoothing)]
        for measure in (next_token, next_token_by_logits):
            got = measure(Wrapped(model), batch, *smoothing)
            assert [x.item() for x in got] == pytest.approx(expected, rel=1e-5)
