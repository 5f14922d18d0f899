"""Parameters put back by path, into whatever form a model keeps them in, and masks among them."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten

from mlxstories.ladder.bench.arrays import is_pattern, put


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(2, 3), {"inner": nn.Linear(3, 2)}]
        self.tables = {"1": nn.Embedding(4, 2), "0": nn.Embedding(5, 2)}  # digits, and not a list
        self.scale = mx.ones(3)


def test_arrays_are_put_where_their_path_says():
    model = Model()
    wanted = {name: mx.random.normal(array.shape) for name, array in tree_flatten(model.parameters())}
    kept = wanted.pop("tables.0.weight"), model.tables["0"].weight
    put(model, wanted)
    found = dict(tree_flatten(model.parameters()))
    assert all((found[name] == array).all() for name, array in wanted.items())
    assert (found["tables.0.weight"] == kept[1]).all() and isinstance(model.tables, dict)


def test_a_path_that_the_model_does_not_have_is_an_error():
    with pytest.raises(ValueError, match=r"tables\.2\.weight"):
        put(Model(), {"tables.2.weight": mx.ones((2, 2))})


def test_masks_are_told_from_weights():
    place = mx.arange(12)
    decay = mx.where(place[:, None] >= place, 0.9 ** (place[:, None] - place).astype(mx.float32), 0.0)
    for mask in (mx.tri(12), decay, decay.T, mx.where(mx.tri(12) > 0, 0.0, -100.0)[None]):
        assert is_pattern(mask)
    for weights in (
        mx.random.normal((12, 12)),
        mx.zeros((12, 12)),
        mx.random.normal((12, 3)),
        mx.ones((12,)),
    ):
        assert not is_pattern(weights)
