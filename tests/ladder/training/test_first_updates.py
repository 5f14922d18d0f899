"""A loss that explodes in the first updates."""

from __future__ import annotations

import math
from types import SimpleNamespace

import mlx.optimizers as optim
import pytest
from plain import given
from tiny import adamw, ask, told

from mlxstories.ladder.bench.step.adam import uncorrected_betas
from mlxstories.ladder.bench.training.first_updates import Beginning, beginnings
from mlxstories.ladder.bench.training.short import short_training, unramped


@pytest.mark.parametrize(
    ("optimizer", "wanted"),
    [
        (adamw(1e-2), []),
        (lambda: optim.SGD(40.0, momentum=0.95), ["learning-rate-too-large"]),
    ],
)
def test_an_explosion_in_the_first_updates_is_told(optimizer, wanted):
    found = ask("survives its first updates", optimizer=optimizer)
    assert [code for code, _ in told(found)[1]] == wanted


@pytest.mark.parametrize(("end", "status"), [(math.inf, "failed"), (3.0, "passed")])
def test_a_loss_that_is_no_number_after_the_first_updates_has_grown(end, status):
    short = SimpleNamespace(steps=60, loss=2.0)
    taken = {
        beginnings: (Beginning(2.5, end),) * 2,
        short_training: short,
        unramped: SimpleNamespace(end=end),
    }
    verdict = given("survives its first updates", taken | {uncorrected_betas: None})
    assert verdict.status == status
