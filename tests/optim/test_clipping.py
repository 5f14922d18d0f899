from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxstories.backend import kernels
from mlxstories.errors import StoriesError
from mlxstories.optim import clip_by_global_norm
from mlxstories.optim.clipping import global_norm, parameter_norms


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=8), st.floats(1e-3, 1e4))
def test_norm_is_capped_and_direction_kept(values, max_norm):
    wanted = np.array(values, dtype=np.float64)
    tree = {"a": mx.array(values[:1]), "b": [{"c": mx.array(values[1:])}]}
    clipped, norm = clip_by_global_norm(tree, max_norm)
    length = np.linalg.norm(wanted)
    assert norm.item() == pytest.approx(length, rel=1e-5, abs=1e-18)  # below it squares leave float32
    got = np.concatenate([clipped["a"], clipped["b"][0]["c"]])
    np.testing.assert_allclose(got, wanted * min(1, max_norm / max(length, 1e-30)), rtol=1e-5, atol=1e-30)


def test_parity_with_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    gradients = [rng.standard_normal(shape).astype(np.float32) for shape in ((3, 4), (5,))]
    parameters = [torch.nn.Parameter(torch.zeros(g.shape)) for g in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    expected = torch.nn.utils.clip_grad_norm_(parameters, 0.5).item()
    clipped, norm = clip_by_global_norm([mx.array(g) for g in gradients], 0.5)
    assert norm.item() == pytest.approx(expected, rel=1e-6)
    for got, parameter in zip(clipped, parameters, strict=True):
        np.testing.assert_allclose(got, parameter.grad.numpy(), rtol=1e-5)  # PyTorch adds 1e-6 to the norm


def test_zero_and_what_is_not_finite():
    clipped, norm = clip_by_global_norm({"w": mx.zeros(3)}, 1.0)
    assert norm.item() == 0 and mx.array_equal(clipped["w"], mx.zeros(3))
    for bad, check in ((float("nan"), np.isnan), (float("inf"), np.isinf)):
        clipped, norm = clip_by_global_norm({"w": mx.array([1.0, bad])}, 1.0)
        assert check(norm.item()) and not mx.isfinite(clipped["w"]).all().item()


def test_bfloat16_norm_is_float32():
    clipped, norm = clip_by_global_norm({"w": mx.ones(10_000, mx.bfloat16)}, 50.0)
    assert norm.dtype == mx.float32 and norm.item() == 100
    assert clipped["w"].dtype == mx.bfloat16 and clipped["w"][0].item() == 0.5


def test_a_bad_max_norm_is_refused():
    with pytest.raises(StoriesError, match="max_norm must be a number above 0; got 0"):
        clip_by_global_norm({"w": mx.ones(1)}, 0)


def test_norms_are_the_same_by_stacks(monkeypatch):
    shapes = {"a": (3, 4), "b": (5,), "c": (3, 4), "d": (), "e": (4, 3), "f": (5,)}
    tree = {
        name: mx.random.normal(shape, key=mx.random.key(i)) for i, (name, shape) in enumerate(shapes.items())
    }
    wanted = [np.linalg.norm(np.array(value)) for value in tree.values()]
    for copies_pay in (False, True):
        monkeypatch.setattr(kernels, "copies_pay", lambda answer=copies_pay: answer)
        np.testing.assert_allclose(np.array(parameter_norms(tree)), wanted, rtol=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("copies_pay", [False, True])
def test_the_norm_of_a_tree(monkeypatch, copies_pay, compiled):
    """More arrays of one shape than one kernel takes, some of another order in memory, and types that differ."""
    monkeypatch.setattr(kernels, "copies_pay", lambda: copies_pay)
    draw = np.random.default_rng(0)
    tree = [mx.array(draw.standard_normal((6, 4)), mx.float32) for _ in range(40)]
    tree += [mx.array(draw.standard_normal((4, 6)), mx.float32).T, mx.ones((), mx.bfloat16), mx.ones(5)]
    wanted = np.sqrt(sum((np.array(leaf.astype(mx.float32), np.float64) ** 2).sum() for leaf in tree)) / 7
    norm = mx.compile(global_norm) if compiled else global_norm
    assert norm(tree, mx.array(7.0)).item() == pytest.approx(wanted, rel=1e-6)
