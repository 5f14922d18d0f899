"""Setups whose gradients look like another fault's: few entries that count, all as large, or drowned by a residual."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from tiny import T, Tiny, subject

from mlxstories.ladder import diagnose
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.loss.objective import _solve
from mlxstories.ladder.bench.model.answers import linear_pairs
from mlxstories.ladder.bench.step.arriving import _taking_part
from mlxstories.ladder.bench.step.steps import watched_steps


class Signs(Tiny):
    """Each weight has its sign, times the mean size of its matrix: the gradient is as large at every entry."""

    def __call__(self, tokens):
        own = {name: part.weight for name, part in self.children().items()}
        for name, weight in own.items():
            self[name].weight = mx.abs(weight).mean() * mx.stop_gradient(mx.sign(weight))
        out = super().__call__(tokens)
        for name, weight in own.items():
            self[name].weight = weight
        return out


def test_gradients_that_are_as_large_at_every_entry_are_no_lost_state():
    made = subject(model=Signs, optimizer=lambda: optim.Adam(1e-5))
    watched = watched_steps(Bench(made, 0))
    assert max(watched.spreads[1:]) < 0.05 and max(watched.slopes) < 0.1  # moves as an Adam does that forgets
    assert "state-not-kept" not in [f.code for f in diagnose(made, rungs=["minimal"]).findings]
    assert min(watched_steps(Bench(subject(), 0)).slopes) > 0.5


class Masked(Tiny):
    """Attention to the past, with a mask of infinities that MLX counts among the parameters."""

    def __init__(self):
        super().__init__()
        self.mask = mx.where(mx.tril(mx.ones((T, T))) > 0, 0.0, -mx.inf)

    def __call__(self, tokens):
        x, t = self.embed(tokens), tokens.shape[1]
        weights = mx.softmax(x @ x.swapaxes(-1, -2) + self.mask[:t, :t], axis=-1)
        return self.head(x + mx.tanh(self.mix(weights @ x)))


def test_infinities_of_a_mask_among_the_parameters_are_no_broken_step():
    made = subject(model=Masked, optimizer=lambda: optim.AdamW(1e-2, bias_correction=True))
    assert "not-finite" not in [f.code for f in diagnose(made, rungs=["minimal"]).findings]
    assert np.isfinite(watched_steps(Bench(made, 0)).decays).all()


def test_a_loss_in_16_bits_smooths_no_labels():
    fitted = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        terms = np.stack([5.55 + 0.2 * rng.random(10), 5.65 + 0.05 * rng.random(10)], axis=1)
        sign, smoothing, _ = _solve(terms, terms @ [0.9, 0.1])
        assert (sign, smoothing) == (1, pytest.approx(0.1))
        rounded = np.array(mx.array(terms[:, 0]).astype(mx.bfloat16).astype(mx.float32))
        if (solved := _solve(terms, rounded)) is not None:
            fitted.append(solved[1])
    assert len(fitted) > 5 and not any(fitted)


def test_what_is_added_to_a_loss_smooths_no_labels():
    rng = np.random.default_rng(0)
    terms = np.stack([5.55 + 0.2 * rng.random(10), 5.65 + 0.01 * rng.random(10)], axis=1)
    assert _solve(terms, terms[:, 0] + 16.0) is None  # the square of all weights, say


def test_values_that_hardly_differ_are_explained_by_no_formula():
    solved = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        terms = np.stack([5.55 + 0.02 * rng.random(8), 5.56 + 0.0002 * rng.random(8)], axis=1)
        assert _solve(terms, terms[:, 0]) is not None
        solved += _solve(terms, 5.55 + 0.02 * rng.random(8)) is not None  # within 0.2 % of any mean
    assert solved == 0


def test_how_many_entries_take_part():
    assert _taking_part(np.zeros(9)) == 0
    assert _taking_part(np.eye(1, 9)[0] + 1e-6) == pytest.approx(1, rel=1e-4)
    assert _taking_part(np.full(9, -3e-20)) == pytest.approx(9)


class Block(nn.Module):
    """What two matrices add to a stream, a tenth of a thousandth of it, with or without an activation between them."""

    def __init__(self, bend):
        super().__init__()
        self.up, self.down, self.bend = nn.Linear(16, 32), nn.Linear(32, 16), bend
        self.down.weight = self.down.weight * 1e-3

    def __call__(self, x):
        return x + self.down(self.bend(self.up(x)))


@pytest.mark.parametrize(("bend", "found"), [(nn.relu, []), (lambda x: x, ["block"])])
def test_a_residual_does_not_make_a_block_linear(bend, found):
    class Residual(Tiny):
        def __init__(self):
            super().__init__()
            self.block = Block(bend)

        def __call__(self, tokens):
            return self.head(self.block(self.embed(tokens)))

    assert linear_pairs(Bench(subject(model=Residual), 0)) == found
