"""What can be read from a fresh model: dropout, tables, adapters, modules that stand in several places."""

from __future__ import annotations

import copy

import mlx.core as mx
import mlx.nn as nn
import pytest
from plain import D, Net, V, bench

from mlxstories.ladder.bench.model.modules import adapters, dropouts, repeated_modules, second_tables
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import CHECKS


def test_what_can_be_read_from_a_fresh_model():
    assert dropouts(bench(model=lambda: Net(nn.Dropout(0.9)))) == {"middle": pytest.approx(0.9)}

    def tied():
        model = Net()
        model.head.weight = model.embed.weight
        return model

    assert second_tables(bench(model=tied)) == [("embed.weight", "head.weight")]
    assert second_tables(bench()) == []

    class Adapted(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(32, 32)
            self.lora_a, self.lora_b = mx.random.normal((32, 2)), mx.zeros((2, 32))

    class Gains(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(32, 32)
            self.plus, self.times = mx.zeros((4, 8)), mx.ones((4, 8))

    def frozen():
        model = Net(Adapted())
        model.middle.linear.freeze()
        return model

    assert adapters(bench(model=lambda: Net(Adapted()))).where == "middle.linear.weight"
    assert adapters(bench(model=frozen)).where == ""
    assert adapters(bench()) is None
    assert adapters(bench(model=lambda: Net(Gains()))) is None


class Blocks(nn.Module):
    """Wide layers that start as copies of one, as a state space's tables do."""

    def __init__(self, head_of_embedding: bool):
        super().__init__()
        self.embed, self.head = nn.Embedding(V, D), nn.Linear(D, V, bias=False)
        wide = nn.Sequential(nn.Linear(D, 2 * V), nn.GELU(), nn.Linear(2 * V, D))
        self.blocks = [copy.deepcopy(wide) for _ in range(3)]
        if head_of_embedding:
            self.head.weight = self.embed.weight

    def __call__(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def test_layers_that_start_as_copies_are_no_tied_weights():
    assert second_tables(bench(model=lambda: Blocks(False))) == []
    assert second_tables(bench(model=lambda: Blocks(True))) == [("embed.weight", "head.weight")]


def test_a_list_of_one_block_times_three_is_told_as_one_module():
    class Repeated(Blocks):
        def __init__(self):
            super().__init__(False)
            self.blocks = self.blocks[:1] * 3

    checked = CHECKS["gradients alive"]
    told = checked.ask(bench(model=Repeated), Gauges(checked.limits))
    assert told.status == "passed"
    assert [(d.severity, d.evidence["paths"]) for d in told.drafts] == [
        ("warning", ["blocks.0", "blocks.1", "blocks.2"])
    ]
    assert repeated_modules(bench(model=lambda: Blocks(False))) == {}


def test_a_module_by_two_names_is_tied_on_purpose():
    class Tied(Net):
        def __init__(self):
            super().__init__()
            self.head = self.embed

        def __call__(self, tokens):
            return self.head.as_linear(self.embed(tokens))

    assert repeated_modules(bench(model=Tied)) == {}
    assert second_tables(bench(model=Tied)) == []
    checked = CHECKS["gradients alive"]
    assert checked.ask(bench(model=Tied), Gauges(checked.limits)).drafts == ()
