"""Masks among the parameters, which training opens."""

from __future__ import annotations

import mlx.core as mx
import pytest
from tiny import Placed, T, judged

from mlxstories.findings import ERROR, WARNING

NAME = "masks are not trained"


class Masked(Placed):
    """A mask of ones and zeros in a public attribute: training opens it."""

    def __init__(self):
        super().__init__()
        self.mask = mx.tri(T)

    def weights(self, length):
        return self.mask[:length, :length]


class BooleanMask(Masked):
    def __init__(self):
        super().__init__()
        self.mask = mx.tri(T, dtype=mx.bool_)

    def weights(self, length):
        mask = self.mask[:length, :length]
        return mx.where(mask, 1.0, 0.0) if mask.dtype == mx.bool_ else mx.exp(mask)


@pytest.mark.parametrize("model", [Masked, BooleanMask])
def test_a_mask_that_is_trained_is_called_by_its_name(model):
    assert judged(NAME, model=model) == [("buffer-trained", ERROR)]


class PrivateMask(Placed):
    def __init__(self):
        super().__init__()
        self._mask = mx.tri(T)

    def weights(self, length):
        return self._mask[:length, :length]


class FrozenMask(Masked):
    def __init__(self):
        super().__init__()
        self.freeze(keys=["mask"], recurse=False)


@pytest.mark.parametrize("model", [Placed, PrivateMask, FrozenMask])
def test_a_mask_that_is_not_trained_is_left_alone(model):
    assert judged(NAME, model=model) == []


def test_a_trained_additive_mask_is_worth_a_warning():
    class Additive(Masked):
        def __init__(self):
            super().__init__()
            self.mask = mx.where(mx.tri(T) > 0, 0.0, -1e9)

        def weights(self, length):
            return mx.exp(self.mask[:length, :length])

    assert judged(NAME, model=Additive) == [("buffer-trained", WARNING)]
