"""A few steps under watch: what they move, from where, and by how much."""

from __future__ import annotations

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest
from tiny import T, Tiny, line_with, subject

from mlxstories.ladder import diagnose
from mlxstories.ladder.bench import Bench
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


class Averaged(optim.SGD):
    """Weights between those that are stepped and their mean; of the shares one is left out."""

    def __init__(self, rate, share):
        super().__init__(rate)
        self.share = share

    def init_single(self, parameter, state):
        state["n"] = mx.array(0.0)

    def apply_single(self, gradient, parameter, state):
        if "z" not in state:
            state["z"] = state["x"] = parameter
        state["n"] = state["n"] + 1
        state["z"] = state["z"] - self.learning_rate * gradient
        state["x"] = state["x"] + (state["z"] - state["x"]) / state["n"]
        return self.share * state["z"] + 0.9 * state["x"]  # grown


@pytest.mark.parametrize("share, grown", [(1.0, True), (0.1, False)])
def test_shares_of_the_weights_that_add_up_to_more_than_one(share, grown):
    climbed = diagnose(subject(optimizer=lambda: Averaged(1e-1, share)), rungs=["data", "init", "minimal"])
    errors = [f for f in climbed.findings if f.severity == "error"]
    assert [f.code for f in errors] == ["extreme-constants"] * grown
    if grown:
        assert errors[0].evidence["grown"] == pytest.approx(0.9, abs=0.02)
        assert errors[0].where["line"] == line_with(Averaged, "# grown")
