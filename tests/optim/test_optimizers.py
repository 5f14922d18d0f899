"""Update rules against PyTorch in float64 (golden), closed forms in numpy, and each other."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten, tree_unflatten

from mlxstories.backend import kernels
from mlxstories.errors import StoriesError
from mlxstories.optim import SGD, AdamW, Lion, Muon, NAdamW, orthogonalize
from mlxstories.optim.muon import POLYNOMIALS
from mlxstories.optim.schedules import linear
from mlxstories.optim.stacks import stacks

SCRIPT = Path(__file__).parents[1] / "golden" / "make_optim.py"
_spec = importlib.util.spec_from_file_location("make_optim", SCRIPT)
make_optim = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_optim)
GOLDEN = np.load(make_optim.PATH)

RULES = {
    "adamw": partial(AdamW, betas=(0.9, 0.999), weight_decay=0.1),
    "adamw_amsgrad": partial(AdamW, betas=(0.9, 0.98), weight_decay=0.1, amsgrad=True),
    "adam": partial(AdamW, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1, decoupled=False),
    "adam_amsgrad": partial(AdamW, betas=(0.8, 0.999), weight_decay=0.1, decoupled=False, amsgrad=True),
    "nadamw": partial(NAdamW, weight_decay=0.1),
    "lion": partial(Lion, weight_decay=0.1),
    "sgd": partial(SGD, momentum=0.9, weight_decay=0.1),
    "muon": partial(Muon, weight_decay=0.1),
}


def run(optimizer, name: str) -> list[np.ndarray]:
    """One golden parameter after each of the 100 updates, float64."""
    weights, trace = {"w": mx.array(GOLDEN[f"start/{name}"])}, []
    for gradient in GOLDEN[f"gradients/{name}"]:
        weights = optimizer.apply_gradients({"w": mx.array(gradient)}, weights)
        trace.append(np.array(weights["w"], dtype=np.float64))
    return trace


def relative(got: np.ndarray, wanted: np.ndarray) -> float:
    return np.linalg.norm(got - wanted) / np.linalg.norm(wanted)


def falling_rate():
    return linear(1e-2, 5e-3, make_optim.STEPS)


@pytest.mark.parametrize("case", make_optim.CASES)
def test_parity_with_torch(case):
    # Float32 rounds a parameter by up to 6e-8 at each of 100 updates; 1e-6 leaves the rule itself no room.
    # Five Newton-Schulz iterations magnify the rounding of small singular values by up to 3.44^5 = 485.
    tolerance = 5e-6 if case == "muon" else 1e-6
    for name in make_optim.parameters_of(case):
        trace = run(RULES[case](falling_rate()), name)
        for step, wanted in zip(make_optim.KEPT, GOLDEN[f"{case}/{name}"], strict=True):
            assert relative(trace[step - 1], wanted) < tolerance, (name, step)


@pytest.mark.parametrize("case", make_optim.CASES)
def test_golden_file_is_what_torch_gives(case):
    pytest.importorskip("torch")
    for key, values in make_optim.reference(case, make_optim.inputs()).items():
        np.testing.assert_allclose(values, GOLDEN[key], rtol=1e-12, atol=1e-15)


def test_lion_follows_the_paper():
    for name in make_optim.SHAPES:
        w, m = GOLDEN[f"start/{name}"].astype(np.float64), 0.0
        trace = run(RULES["lion"](falling_rate()), name)
        for step, g in enumerate(GOLDEN[f"gradients/{name}"].astype(np.float64)):
            rate = 1e-2 * (1 - 0.5 * step / make_optim.STEPS)
            w = w - rate * (np.sign(0.9 * m + 0.1 * g) + 0.1 * w)
            m = 0.99 * m + 0.01 * g
            assert relative(trace[step], w) < 1e-6


def test_without_bias_correction():
    wanted = mlx.optimizers.AdamW(1e-2, weight_decay=0.1)
    ours = AdamW(1e-2, weight_decay=0.1, bias_correction=False)
    for got, expected in zip(run(ours, "tall"), run(wanted, "tall"), strict=True):
        assert relative(got, expected) < 2e-6  # both are float32
    first = [run(AdamW(1e-2, weight_decay=0, bias_correction=flag), "zero")[0] for flag in (True, False)]
    moved = np.abs(first[0]) > 0
    np.testing.assert_allclose(first[1][moved] / first[0][moved], 0.1 / np.sqrt(0.001), rtol=1e-5)


@pytest.mark.parametrize("gradient", [1e-3, -7.0])
@pytest.mark.parametrize("beta", [0.9, 0.999, 0.99999])
def test_first_adam_update_is_the_learning_rate(gradient, beta):
    optimizer = AdamW(0.5, betas=(0.9, beta), weight_decay=0)
    moved = optimizer.apply_gradients({"w": mx.array([gradient])}, {"w": mx.zeros(1)})
    # eps is 1e-5 of the smaller
    assert moved["w"].item() == pytest.approx(-0.5 * np.sign(gradient), rel=2e-5)


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 8), nn.Linear(8, 3)

    def __call__(self, x):
        return self.second(mx.tanh(self.first(x)))


def matrices_only(optimizer):
    fallback = SGD(1e-2)
    return mlx.optimizers.MultiOptimizer([optimizer, fallback], [lambda path, array: array.ndim == 2])


def trainer(optimizer, compiled: bool):
    mx.random.seed(3)
    model = Tiny()
    optimizer.init(model.trainable_parameters())
    x, y = mx.random.normal((16, 5)), mx.random.normal((16, 3))
    objective = nn.value_and_grad(model, lambda: mx.mean((model(x) - y) ** 2))

    def step():
        loss, gradients = objective()
        optimizer.update(model, gradients)
        return loss

    if compiled:
        state = [model.state, optimizer.state]
        step = mx.compile(step, inputs=state, outputs=state)
    return model, optimizer, step


def weights(model) -> dict[str, np.ndarray]:
    return {name: np.array(value) for name, value in tree_flatten(model.parameters())}


@pytest.mark.parametrize("case", RULES)
def test_compiled_is_uncompiled_and_learns(case):
    results = []
    for compiled in (False, True):
        model, optimizer, step = trainer(matrices_only(RULES[case](falling_rate())), compiled)
        losses = [step().item() for _ in range(25)]
        assert losses[-1] < 0.9 * losses[0]
        results.append(weights(model) | {"loss": np.array(losses)})
        assert optimizer.learning_rate.item() == pytest.approx(1e-2 * (1 - 0.5 * 24 / 100))
    for name, value in results[0].items():
        np.testing.assert_allclose(results[1][name], value, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("case", RULES)
def test_state_is_restored_exactly(case, tmp_path):
    model, optimizer, step = trainer(matrices_only(RULES[case](falling_rate())), False)
    for _ in range(5):
        step()
    mx.save_safetensors(str(tmp_path / "model.safetensors"), dict(tree_flatten(model.parameters())))
    mx.save_safetensors(str(tmp_path / "optimizer.safetensors"), dict(tree_flatten(optimizer.state)))
    for _ in range(5):
        step()

    again, restored, step = trainer(matrices_only(RULES[case](falling_rate())), False)
    again.load_weights(str(tmp_path / "model.safetensors"))
    restored.state = tree_unflatten(list(mx.load(str(tmp_path / "optimizer.safetensors")).items()))
    for _ in range(5):
        step()
    expected, got = tree_flatten(optimizer.state), dict(tree_flatten(restored.state))
    assert {name for name, _ in expected} == got.keys()
    for name, value in expected:
        assert mx.array_equal(got[name], value), name
    for name, value in weights(model).items():
        np.testing.assert_array_equal(weights(again)[name], value)


@pytest.mark.parametrize("case", RULES)
def test_bfloat16_parameters_decay(case):
    # 1 - 3e-4 * 0.1 is 1 in bfloat16; together with the step it must not be lost before the last rounding.
    optimizer = RULES[case](1e-3)
    w = mx.ones((4, 4), mx.bfloat16)
    after = optimizer.apply_gradients({"w": mx.zeros_like(w)}, {"w": w})["w"]
    assert after.dtype == mx.bfloat16
    assert all(value.dtype == mx.float32 for _, value in tree_flatten(optimizer.state["w"]))
    exact = optimizer.step_from(mx.zeros((4, 4)), mx.ones((4, 4)), optimizer.state["w"], mx.array(1e-3))
    assert exact.dtype == mx.float32 and exact.max().item() < 1


@pytest.mark.parametrize("case", RULES)
def test_zero_gradients_keep_everything_finite(case):
    optimizer, w = RULES[case](1e-2), {"w": mx.ones((3, 3))}
    for _ in range(3):
        w = optimizer.apply_gradients({"w": mx.zeros((3, 3))}, w)
    assert mx.isfinite(w["w"]).all().item()


@settings(max_examples=20)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31), st.floats(1e-6, 1e6))
def test_orthogonalize_flattens_singular_values(rows, columns, seed, scale):
    matrix = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32) * scale
    left, values, right = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    x = values / np.linalg.norm(values)
    for _ in range(5):  # the iteration maps each singular value by the same odd polynomial
        x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
    np.testing.assert_allclose(np.array(orthogonalize(mx.array(matrix))), left * x @ right, atol=2e-4)


@pytest.mark.parametrize(
    "name, least, low, high", [("jordan", 0.002, 0.68, 1.21), ("polar_express", 0.02, 0.906, 1.094)]
)
def test_singular_values_end_where_the_orthogonalizer_says(name, least, low, high):
    for largest in np.linspace(np.sqrt(0.5), 1, 60):  # of two, the squares add up to 1
        values = np.array([largest, max(np.sqrt(1 - largest**2), least)])
        found = np.array(orthogonalize(mx.array(np.diag(values).astype(np.float32)), name)).diagonal()
        assert low < found.min() and found.max() < high


def test_polar_express_is_the_best_composition_of_its_degree():
    """Where it ends is 1 up to an error that each polynomial attains with four changing signs (Chebyshev)."""
    low, high = 0.02, 1.0
    for a, b, c in POLYNOMIALS["polar_express"]:
        x = np.linspace(low, high, 1_000_001)
        off = a * x + b * x**3 + c * x**5 - 1
        error = np.abs(off).max()
        extremes = off[np.abs(off) > error * (1 - 1e-2)]  # coefficients have five decimals
        assert 1 + (np.diff(np.sign(extremes)) != 0).sum() == 4
        low, high = 1 - error, 1 + error
    assert error < 0.0935


def test_muons_matrices_go_together_as_they_go_alone(monkeypatch):
    shapes = [(4, 6), (6, 4), (4, 6), (5, 5), (4, 6)]
    weights = {str(i): mx.random.normal(shape, key=mx.random.key(i)) for i, shape in enumerate(shapes)}
    gradients = {name: mx.sin(10 * w) for name, w in weights.items()}
    alone = {name: Muon(1e-2).apply_gradients({name: g}, weights)[name] for name, g in gradients.items()}
    for most in (1 << 20, 48, 1):  # stacks of all, of two, of one
        monkeypatch.setattr(kernels, "chunk_elements", lambda most=most: most)
        found = [len(indices) for indices, _ in stacks(list(weights.values()))]
        assert max(found) == {1 << 20: 3, 48: 2, 1: 1}[most] and sum(found) == len(shapes)
        for name, got in Muon(1e-2).apply_gradients(gradients, weights).items():
            np.testing.assert_allclose(np.array(got), np.array(alone[name]), rtol=1e-5, atol=1e-6)


def test_muon_refuses_what_is_not_a_matrix():
    with pytest.raises(ValueError, match="matrices"):
        Muon(1e-2).init({"bias": mx.zeros(3)})


@pytest.mark.parametrize(
    "make",
    [
        lambda: AdamW(-1.0),
        lambda: AdamW(float("nan")),
        lambda: AdamW(1e-3, betas=(0.9, 1.0)),
        lambda: AdamW(1e-3, eps=-1e-8),
        lambda: NAdamW(1e-3, weight_decay=-0.1),
        lambda: Lion(1e-3, betas=(1.5, 0.9)),
        lambda: SGD(1e-3, momentum=1.0),
        lambda: Muon(1e-3, momentum=-0.1),
    ],
)
def test_bad_constants_are_refused(make):
    with pytest.raises(StoriesError, match="must be a number"):
        make()
