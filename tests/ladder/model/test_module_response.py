"""What single modules answer: pairs of linear layers, the power of a norm's input."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import pytest
from plain import D, Net, bench
from tiny import Tiny, subject

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.linear_chains import linear_chains
from mlxstories.ladder.bench.model.module_response import degrees, linear_pairs


class Pair(nn.Module):
    def __init__(self, hidden: int, bent: bool):
        super().__init__()
        self.up, self.down, self.bent = nn.Linear(D, hidden), nn.Linear(hidden, D), bent

    def __call__(self, x):
        return self.down(nn.gelu(self.up(x)) if self.bent else self.up(x))


@pytest.mark.parametrize(("pair", "told"), [((32, False), True), ((32, True), False), ((4, False), False)])
def test_linear_layers_with_nothing_between_them(pair, told):
    assert linear_pairs(bench(model=lambda: Net(Pair(*pair)))) == (["middle"] if told else [])


class BentLast(Pair):
    def __call__(self, x):
        return nn.gelu(self.down(self.up(x)))


@pytest.mark.parametrize(("hidden", "told"), [(32, [("middle.up", "middle.down")]), (4, [])])
def test_an_activation_behind_two_linear_layers_leaves_them_one(hidden, told):
    assert linear_pairs(bench(model=lambda: Net(BentLast(hidden, False)))) == []
    assert linear_chains(bench(model=lambda: Net(BentLast(hidden, False)))) == told
    assert linear_chains(bench(model=lambda: Net(Pair(32, True)))) == []


class Shared(nn.Module):
    """Keys and values of what one layer makes; the keys may be made of it through an activation."""

    def __init__(self, bent: bool):
        super().__init__()
        self.up, self.key, self.value, self.bent = nn.Linear(D, 16), nn.Linear(16, D), nn.Linear(16, D), bent

    def __call__(self, x):
        up = self.up(x)
        return mx.sigmoid(self.key(nn.silu(up) if self.bent else up)) * self.value(up)


@pytest.mark.parametrize(
    ("bent", "told"), [(True, []), (False, [("middle.up", "middle.key"), ("middle.up", "middle.value")])]
)
def test_a_layer_that_serves_others_through_an_activation_is_no_half_of_a_pair(bent, told):
    assert linear_chains(bench(model=lambda: Net(Shared(bent)))) == told


class Norm(nn.Module):
    def __init__(self, divides: bool):
        super().__init__()
        self.weight, self.divides = mx.ones((D,)), divides

    def __call__(self, x):
        r = mx.rsqrt(x.square().mean(-1, keepdims=True) + 1e-9)
        return self.weight * (x / r if self.divides else x * r)


def test_the_power_of_a_norms_input():
    for divides, power in ((False, 0), (True, 2)):
        found = degrees(bench(model=lambda divides=divides: Net(Norm(divides))))
        assert found["middle"] == pytest.approx(power, abs=0.01)


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
