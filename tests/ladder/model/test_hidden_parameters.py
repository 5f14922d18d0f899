"""Layers that a model computes with and that are no parameters of it."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import pytest
from tiny import Placed, T, V, judged

from mlxstories.findings import ERROR, WARNING
from mlxstories.ladder.capture.copies import clone


def asked(model) -> list[tuple[str, str]]:
    return judged("the parameters are the model", model=model)


class Outside(Placed):
    """Adds a layer that stands where MLX looks for none."""

    def __init__(self, keep):
        super().__init__()
        layer = nn.Linear(V, V)
        keep(self, layer)
        self._used = lambda: layer

    def __call__(self, tokens):
        logits = super().__call__(tokens)
        return logits + self._used()(logits)


class Plainly:
    def __init__(self, layer):
        self.layer = layer


@pytest.mark.parametrize(
    "keep",
    [
        lambda model, layer: setattr(model, "_layer", layer),
        lambda model, layer: setattr(model, "_layers", [{"a": layer}]),
        lambda model, layer: setattr(model, "pair", (layer, layer)),
        lambda model, layer: setattr(model, "plain", Plainly(layer)),
    ],
)
def test_of_one_model_a_layer_that_is_no_parameter_is_named(keep):
    mx.random.seed(0)  # a matrix this small may be drawn without a value near its bound
    one = Outside(keep)
    weight = mx.array(one._used().weight)
    assert asked(lambda: one) == [("hidden-parameters", ERROR)]
    assert bool((one._used().weight == weight).all())


class Body(Placed):
    """Keeps layers where MLX looks for none, as `self._blocks`."""

    def __init__(self):
        super().__init__()
        self._blocks = [nn.Linear(V, V)]

    def __call__(self, tokens):
        logits = super().__call__(tokens)
        return logits + self._blocks[0](logits)


def test_of_copies_of_one_model_too():
    one = Body()
    assert asked(lambda: clone(one)) == [("hidden-parameters", ERROR)]


def test_layers_outside_that_were_trained_elsewhere_are_a_warning():
    def trained(model, layer):
        layer.weight = mx.random.normal(layer.weight.shape)
        model._layer = layer

    one = Outside(trained)
    assert asked(lambda: one) == [("hidden-parameters", WARNING)]


def test_what_is_kept_outside_and_changes_nothing_is_left_alone():
    def alias(model, layer):
        model.layer = layer
        model._again = (layer,)

    one = Outside(alias)
    one._average, one._mask = nn.Linear(V, V), mx.ones((T, T))
    assert asked(lambda: one) == []
