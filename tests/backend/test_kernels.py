"""The CPU's own exponential, activations and attention, against float64 and against MLX's."""

import subprocess
import sys
from contextlib import nullcontext

import mlx.core as mx
import numpy as np
import pytest

from mlxstories.backend import kernels


def test_exponential_is_accurate_over_the_whole_range():
    x = np.concatenate([-np.logspace(-6, np.log10(87), 20_000), [0.0, -87.0]]).astype("f4")
    exact = np.exp(x.astype("f8"))
    for exp in (kernels.exp_nonpositive, mx.compile(kernels.exp_nonpositive)):
        error = np.abs(np.array(exp(mx.array(x))) / exact - 1)
        # an input rounded to float32 is uncertain by |x| 6e-8 already
        assert (error <= 5e-7 * (1 + np.abs(x))).all()
        assert error[x > -1].max() < 7e-7
        assert not np.array(exp(mx.array(np.tile(np.float32([-200, -1e20, -1e30, -np.inf]), 2000)))).any()


def test_sigmoid_and_activations():
    x = np.linspace(-30, 30, 2001).astype("f4")
    wide = x.astype("f8")
    logistic = 1 / (1 + np.exp(-wide))
    np.testing.assert_allclose(np.array(kernels.sigmoid(mx.array(x))), logistic, atol=3e-7)
    tanh = np.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3))
    np.testing.assert_allclose(np.array(kernels.gelu(mx.array(x))), 0.5 * wide * (1 + tanh), atol=1e-5)
    up = mx.array(x[::-1].copy())
    np.testing.assert_allclose(
        np.array(kernels.swiglu(mx.array(x), up)), wide * logistic * wide[::-1], rtol=2e-5, atol=1e-6
    )


@pytest.mark.parametrize("name", ["gelu", "swiglu"])
def test_gradients_of_activations_are_those_of_the_plain_formula(name):
    x, up = mx.linspace(-8, 8, 401), mx.linspace(3, -2, 401)
    plain = {
        "gelu": lambda x, up: 0.5 * x * (1 + mx.tanh(0.7978845608 * (x + 0.044715 * x * x * x))) + up,
        "swiglu": lambda x, up: x * mx.sigmoid(x) * up,
    }[name]
    ours = {"gelu": lambda x, up: kernels.gelu(x) + up, "swiglu": kernels.swiglu}[name]
    weights = mx.sin(mx.arange(401))
    for argument in (0, 1):
        expected, got = (
            mx.grad(lambda a, b, f=f: (weights * f(a, b)).sum(), argnums=argument)(x, up)
            for f in (plain, ours)
        )
        np.testing.assert_allclose(np.array(got), np.array(expected), atol=3e-6)


@pytest.mark.parametrize("place", [nullcontext, kernels.as_on_gpu])
@pytest.mark.parametrize("mask", [None, "causal", "segments"])
@pytest.mark.parametrize("compiled", [False, True])
def test_attention_and_its_gradients_equal_mlxs(mask, compiled, place):
    mx.random.seed(0)
    q, k, v, weights = (2 * mx.random.normal((2, 3, 10, 8)) for _ in range(4))
    if mask == "segments":
        index, starts = mx.arange(10), mx.array([[0] * 4 + [4] * 6, [0] * 9 + [9]])
        mask = ((index <= index[:, None]) & (index >= starts[..., None]))[:, None]

    def run(attention):
        def total(q, k, v):
            return (weights * attention(q, k, v)).sum()

        differentiate = mx.value_and_grad(total, argnums=(0, 1, 2))
        return (mx.compile(differentiate) if compiled else differentiate)(q, k, v)

    with place():
        value, gradients = run(lambda q, k, v: kernels.attention(q, k, v, 0.35, mask, training=True))
    expected, expected_gradients = run(
        lambda q, k, v: mx.fast.scaled_dot_product_attention(q, k, v, scale=0.35, mask=mask)
    )
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    for got, wanted in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(np.array(got), np.array(wanted), atol=1e-5)


def test_a_gpu_takes_mlxs_own_attention_where_it_may_be_one_kernel(monkeypatch):
    taken = []
    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", lambda q, *_, **__: taken.append(q.dtype))
    low, high = (mx.zeros((1, 1, 4, 8), dtype) for dtype in (mx.bfloat16, mx.float32))
    for part in (low, high):
        kernels.attention(part, part, part, 1.0, None, training=True)  # a CPU never does
    with kernels.as_on_gpu():
        kernels.attention(high, high, high, 1.0, None)
        kernels.attention(low, low, low, 1.0, None, training=True)
        kernels.attention(high, high, high, 1.0, None, training=True)
    assert taken == [mx.float32, mx.bfloat16]


def test_processes_share_the_cores():
    code = "from mlxstories.backend import kernels; kernels.share_cores({}); print(len(kernels.streams()))"
    alone, crowded = (
        int(subprocess.run([sys.executable, "-c", code.format(n)], capture_output=True, check=True).stdout)
        for n in (1, 1000)
    )
    assert alone >= crowded == 1
