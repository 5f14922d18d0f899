"""The repeatable gradient of a lookup, against the scatter's and against itself."""

import io

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlxstories.backend import embedding, kernels
from mlxstories.model import ModelConfig, Transformer


def ordered(table, tokens):
    return embedding.ordered(mx.stop_gradient(table[tokens]), table, tokens)


def gradient(lookup, tokens, weights, count=50):
    table = mx.random.normal((count, 6), key=mx.random.key(3))
    return mx.grad(lambda table: (weights * lookup(table, tokens)).sum())(table)


@pytest.mark.parametrize("one_hot", [0, 1 << 23], ids=["sorted", "product"])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("shape", [(8, 37), (1,), (2, 1)])
def test_gradient_is_the_scatters_and_repeats(monkeypatch, one_hot, compiled, shape):
    monkeypatch.setattr(embedding, "ONE_HOT", one_hot)
    draw = np.random.default_rng(0)
    tokens = mx.array(np.minimum(draw.zipf(1.4, shape) - 1, 48))  # frequent ones, rare ones, and 49 never
    weights = mx.array(draw.standard_normal((*shape, 6)), mx.float32)
    wanted = gradient(lambda table, tokens: table[tokens], tokens, weights)

    def ours(tokens, weights):
        return gradient(ordered, tokens, weights)

    ours = mx.compile(ours) if compiled else ours
    first, second = ours(tokens, weights), ours(tokens, weights)
    error = mx.linalg.norm(first - wanted) / mx.linalg.norm(wanted)
    assert error.item() < 1e-6
    assert mx.array_equal(first, second)


@pytest.mark.parametrize("one_hot", [0, 1 << 23], ids=["sorted", "product"])
def test_sums_of_many_equal_tokens_are_accurate(monkeypatch, one_hot):
    monkeypatch.setattr(embedding, "ONE_HOT", one_hot)
    draw = np.random.default_rng(1)
    tokens, weights = draw.integers(0, 3, 5000), draw.standard_normal((5000, 6)).astype("f4") + 1
    got = np.array(gradient(ordered, mx.array(tokens), mx.array(weights)))
    for number in range(3):
        exact = weights[tokens == number].astype("f8").sum(axis=0)
        np.testing.assert_allclose(got[number], exact, rtol=1e-6)
    assert not got[3:].any()


def test_bfloat16_keeps_its_type_and_sums_wider():
    tokens, weights = mx.zeros((3000,), mx.int32), mx.ones((3000, 6), mx.bfloat16)
    table = mx.zeros((4, 6), mx.bfloat16)
    summed = mx.grad(lambda table: (weights * ordered(table, tokens)).sum())(table)
    assert summed.dtype == mx.bfloat16
    # added one by one in bfloat16 it stays at 256
    assert summed[0, 0].item() == pytest.approx(3000, rel=2e-2)


@pytest.mark.parametrize("positions", ["rope", "learned"])
def test_a_model_takes_it_on_a_gpu(monkeypatch, positions):
    model = Transformer(ModelConfig(40, dim=16, layers=1, heads=2, context=12, positions=positions))
    tokens = mx.random.randint(0, 40, (3, 12), key=mx.random.key(0))
    differentiate = nn.value_and_grad(model, lambda: mx.square(model(tokens)).mean())
    found = []
    for on_cpu in (True, False):
        monkeypatch.setattr(kernels, "on_cpu", lambda answer=on_cpu: answer)
        scatters = io.StringIO()
        value, gradients = differentiate()
        mx.export_to_dot(scatters, gradients)
        assert ("Scatter" in scatters.getvalue()) == on_cpu
        found.append((value, dict(tree_flatten(gradients))))
    (value, expected), (again, got) = found
    assert again.item() == pytest.approx(value.item(), rel=1e-6)
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-4, atol=1e-6, err_msg=name)
