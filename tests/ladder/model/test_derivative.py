"""The backward pass against differences: scaled, cut, rounded on purpose, drawn anew, or right."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.nn.utils import checkpoint
from tiny import Tiny, batches, judged, subject

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.derivative import derivative_in_training, derivatives
from mlxstories.ladder.registry import CHECKS
from mlxstories.ladder.where import gradcheck


def squared(factor: float):
    """x squared, whose backward pass is ``factor`` times what it should be."""

    @mx.custom_function
    def function(x):
        return x * x

    @function.vjp
    def slope(x, cotangent, _):
        return factor * 2 * x * cotangent

    return function


class Squares(nn.Module):
    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def __call__(self, x):
        return squared(self.factor)(x)


class WithSquares(Tiny):
    """The tiny model with a square before its head, so that only what lies below it gets a wrong gradient."""

    def __init__(self, factor: float):
        super().__init__()
        self.square = Squares(factor)

    def __call__(self, tokens):
        x = self.embed(tokens)
        return self.head(x + self.square(self.mix(x)))


class HalfStopped(Tiny):
    """What the positions before add is kept from the embedding."""

    def __call__(self, tokens):
        x = self.embed(tokens)
        return self.head(x + mx.tanh(self.mix(mx.stop_gradient(x))))


class StraightThrough(Tiny):
    """Signs in the forward pass, their argument in the backward pass (Bengio et al. 2013)."""

    def __call__(self, tokens):
        x = self.embed(tokens)
        y = self.mix(x)
        return self.head(x + y + mx.stop_gradient(mx.sign(y) - y))


class Kinks(Tiny):
    """ReLU, and the larger of two: differences across a kink are no derivative."""

    def __call__(self, tokens):
        x = self.embed(tokens)
        return self.head(nn.relu(x) + mx.maximum(self.mix(x), x))


def asked(model):
    bench = Bench(subject(model=model))
    with bench.protected():
        check = CHECKS["the backward pass is the derivative"]
        return check.ask(bench, check.gauges()).drafts, {
            d.name: d.missing for d in derivatives(bench).modules
        }


@pytest.mark.parametrize("factor", [0.5, 2.0, -1.0])
def test_a_scaled_backward_pass_is_an_error_below_it_alone(factor):
    drafts, missing = asked(lambda: WithSquares(factor))
    assert [(d.code, d.severity) for d in drafts] == [("backward-mismatch", "error")]
    # All of the gradient of `mix` goes through the square: its true one is 1 / factor times as long.
    assert missing["head"] < 0.02
    assert set(drafts[0].evidence["apart"]) <= {"mix", "embed"} and "mix" in drafts[0].evidence["apart"]


def test_the_share_that_is_missing_is_measured():
    """Over many directions the root mean square is |true - taken| / |taken| = 1 for half of a gradient."""
    shares = []
    for seed in range(24):
        bench = Bench(subject(model=lambda: WithSquares(0.5)), seed)
        with bench.protected():
            shares += [d.missing**2 for d in derivatives(bench).modules if d.name == "mix"]
    assert sum(shares) / len(shares) == pytest.approx(1.0, abs=0.4)


def test_a_stopped_gradient_may_be_meant():
    drafts, _ = asked(HalfStopped)
    assert [(d.code, d.severity) for d in drafts] == [("backward-mismatch", "warning")]
    assert "mx.stop_gradient 1 time" in drafts[0].message


@pytest.mark.parametrize("model", [Tiny, lambda: WithSquares(1.0), Kinks], ids=["tiny", "by hand", "kinks"])
def test_sound_backward_passes_are_left_alone(model):
    drafts, missing = asked(model)
    assert not drafts and len(missing) == 3


def test_a_straight_through_gradient_is_no_error():
    drafts, _ = asked(StraightThrough)
    assert [d for d in drafts if d.severity == "error"] == []


def test_it_is_found_in_the_module_that_makes_it():
    mx.random.seed(0)
    model, ids = WithSquares(0.5), next(batches(0)).inputs
    assert gradcheck.differs(model, ids)["module"] == "square"
    assert gradcheck.differs(WithSquares(1.0), ids) is None


class Dropped(Tiny):
    """The tiny model with dropout, computed again on the way back if ``again``, with the masks drawn inside or out."""

    def __init__(self, again: bool, inside: bool):
        super().__init__()
        self.again, self.inside = again, inside

    def __call__(self, tokens):
        x = self.embed(tokens)

        def drawn():
            return mx.random.bernoulli(0.5, x.shape) * 2 if self.training else mx.ones(x.shape)

        outside = None if self.inside else drawn()

        def branch(x):
            return mx.tanh(self.mix(x)) * (drawn() if outside is None else outside)

        return self.head(x + (checkpoint(self, branch) if self.again else branch)(x))


DRAWS = "the backward pass repeats the forward pass's random numbers"


def test_dropout_drawn_again_on_the_way_back_is_an_error():
    assert judged(DRAWS, model=lambda: Dropped(True, True)) == [("backward-mismatch", "error")]


@pytest.mark.parametrize("again, inside", [(True, False), (False, True), (False, False)])
def test_dropout_drawn_once_is_left_alone(again, inside):
    bench = Bench(subject(model=lambda: Dropped(again, inside)))
    assert derivative_in_training(bench).missing < 0.03
    assert judged(DRAWS, model=lambda: Dropped(again, inside)) == []


def test_a_model_without_randomness_has_no_derivative_in_training():
    assert derivative_in_training(Bench(subject())) is None


class Drowned(Tiny):
    """One head of attention, in which a token does not see itself, so that the first one sees none."""

    def __init__(self, hidden: float):
        super().__init__()
        self.q, self.k = nn.Linear(16, 16), nn.Linear(16, 16)
        self.hidden = hidden

    def __call__(self, tokens):
        x = self.embed(tokens)
        scores = self.q(x) @ self.k(x).swapaxes(1, 2)
        shown = mx.tri(x.shape[1], k=-1)
        return self.head(x + mx.softmax(scores + mx.where(shown > 0, 0.0, self.hidden), axis=-1) @ x)


def test_a_query_whose_scores_drown_in_its_mask_is_what_the_advice_is_about():
    (draft,), _ = asked(lambda: Drowned(-1e9))
    assert draft.severity == "error" and "each query see one key" in draft.fix
    (draft,), _ = asked(lambda: WithSquares(0.5))
    assert "custom_function" in draft.fix
