"""Matrices without an effect."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
from tiny import Placed, judged

from mlxstories.faults.recipe import built_in
from mlxstories.findings import ERROR
from mlxstories.ladder.bench import Bench

NAME = "every matrix has an effect"


def test_scores_that_are_drowned_are_called_by_their_name():
    assert judged(NAME, Bench(built_in(fault="scores-drowned"))) == [("without-effect", ERROR)]


def test_a_sound_model_is_left_alone():
    assert judged(NAME, model=Placed) == []


def test_experts_that_no_token_chooses_are_left_alone():
    class Experts(Placed):
        def __init__(self):
            super().__init__()
            self.experts = [nn.Linear(16, 16) for _ in range(3)]

        def embedded(self, tokens):
            x = super().embedded(tokens)
            chosen = (tokens % 3)[..., None]
            chosen = mx.where(chosen == 2, 0, chosen)
            return x + sum(expert(x) * (chosen == k) for k, expert in enumerate(self.experts))

    assert judged(NAME, model=Experts) == []
