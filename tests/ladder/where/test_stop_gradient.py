"""The stop that cuts a parameter off from the loss."""

from __future__ import annotations

import linecache

import mlx.core as mx
import numpy as np
import pytest
from tiny import Tiny, subject

from mlxstories.findings import ERROR, Finding
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.where import located, stop_gradient


class StopsTwice(Tiny):
    """A stop that cuts nothing off, and one that leaves the head alone to learn."""

    def __call__(self, tokens):
        x = self.embed(tokens)
        x = x - mx.stop_gradient(x.mean(axis=-1, keepdims=True))
        x = x + self.mix(x)
        x = mx.stop_gradient(x)  # here
        return self.head(x)


@pytest.mark.parametrize("path", ["embed.weight", "mix.weight"])
def test_the_stop_that_cuts_a_parameter_off(path):
    found = located(
        Bench(subject(model=StopsTwice)), Finding("dead-parameters", ERROR, "init", "", where=path)
    )
    assert "# here" in linecache.getline(found.where["file"], found.where["line"])


def test_a_parameter_that_is_reached_is_not_stopped():
    ids = np.arange(8)[None]
    assert stop_gradient.in_model(StopsTwice(), ids, "head.weight") is None
