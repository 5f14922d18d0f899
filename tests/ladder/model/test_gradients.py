"""Parameters that get no gradient, and matrices of one number."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import pytest
from tiny import T, Tiny, ask, judged

from mlxstories.ladder.verdict import FAILED, PASSED


def test_a_public_mask_that_is_only_compared_is_no_dead_parameter():
    class Masked(Tiny):
        def __init__(self):
            super().__init__()
            self.triangle = mx.tril(mx.ones((T, T)))
            self.unused = nn.Linear(16, 16) if self.dead else None

        def __call__(self, tokens):
            x = self.mix(self.embed(tokens))
            weights = mx.where(self.triangle == 0, 0.0, 1.0) / T
            return self.head(mx.tanh(x + weights[: x.shape[1], : x.shape[1]] @ x))

    for dead, status in ((False, PASSED), (True, FAILED)):
        Masked.dead = dead
        verdict = ask("gradients alive", model=Masked)
        assert verdict.status == status
        assert all("triangle" not in draft.message for draft in verdict.drafts)


def test_a_table_without_a_gradient_is_no_matrix_that_learns_nothing():
    class Rotary(Tiny):
        def __init__(self):
            super().__init__()
            self.angles = mx.outer(mx.arange(T), 1.0 / 100 ** (mx.arange(8) / 8))
            self.unused = nn.Linear(16, 16) if self.dead else None

        def __call__(self, tokens):
            turned = mx.stop_gradient(mx.cos(self.angles))[: tokens.shape[1]]
            x = self.mix(self.embed(tokens))
            return self.head(mx.tanh(x * mx.concatenate([turned, turned], axis=-1)))

    for dead, severity in ((False, "warning"), (True, "error")):
        Rotary.dead = dead
        assert judged("gradients alive", model=Rotary) == [("dead-parameters", severity)]


class Tapped(Tiny):
    """Mixes each embedding with the two before it, channel by channel."""

    def __init__(self):
        super().__init__()
        self.taps = mx.full((3, 16), 1 / 3)

    def __call__(self, tokens):
        x = self.embed(tokens)
        back = (mx.pad(x, [(0, 0), (n, 0), (0, 0)])[:, : x.shape[1]] for n in range(3))
        return self.head(sum(tap * each for tap, each in zip(self.taps, back, strict=True)))


class Constant(Tiny):
    def __init__(self):
        super().__init__()
        self.mix.weight = mx.full(self.mix.weight.shape, 0.1)


class Gated(Tiny):
    """Starts as if it had no gate: next to nothing beside a bias of 1."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(16, 16)
        self.gate.weight, self.gate.bias = mx.full((16, 16), 1e-3), mx.ones((16,))

    def __call__(self, tokens):
        x = self.mix(self.embed(tokens))
        return self.head(mx.tanh(x) * self.gate(x))


def test_taps_that_start_alike_are_no_copies_and_a_layer_of_one_number_is():
    assert judged("units start with different weights", model=Tapped) == []
    assert judged("units start with different weights", model=Gated) == []
    assert judged("units start with different weights", model=Constant) == [("bad-initialization", "error")]


def test_units_that_are_silent_are_told_and_not_that_all_parameters_are_alive():
    class Silent(Tiny):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(16, 16), nn.Linear(16, 16)
            self.up.bias = mx.where(mx.arange(16) < 12, -100.0, 0.0)

        def __call__(self, tokens):
            x = self.mix(self.embed(tokens))
            return self.head(x + self.down(nn.relu(self.up(x))))

    verdict = ask("gradients alive", model=Silent)
    assert verdict.detail == "75% of the units of up.weight are not", verdict


class Ternary(nn.Linear):
    """Weights of -1, 0 and 1 times their mean size; the gradient may be let through."""

    through = False

    def __call__(self, x):
        size = mx.abs(self.weight).mean()
        rounded = mx.clip(mx.round(self.weight / size), -1, 1) * size
        if self.through:
            rounded = self.weight + mx.stop_gradient(rounded - self.weight)
        return x @ rounded.T + self.bias


class LetThrough(Ternary):
    through = True


@pytest.mark.parametrize(("kind", "told"), [(Ternary, [("dead-parameters", "error")]), (LetThrough, [])])
def test_a_gradient_that_rounding_leaves_a_scale_alone(kind, told):
    class Rounded(Tiny):
        def __init__(self):
            super().__init__()
            self.mix = kind(16, 16)

    assert judged("gradients alive", model=Rounded) == told
