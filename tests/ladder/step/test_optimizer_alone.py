"""An optimiser alone, along one gradient, and how it counts its steps."""

from __future__ import annotations

import mlx.nn as nn
import mlx.optimizers as optim
import pytest
from plain import bench

from mlxstories.faults.reported import Backwards
from mlxstories.ladder.bench.step.optimizer_alone import descent_cosines, steps_per_update


@pytest.mark.parametrize(
    "make",
    [
        lambda: optim.SGD(0.1, momentum=0.9, nesterov=True, dampening=0.0),
        lambda: optim.AdamW(1e-3, weight_decay=0.1),
        lambda: optim.Lion(1e-4),
        lambda: optim.Adafactor(),
        lambda: optim.Muon(1e-2),
        lambda: optim.AdamW(optim.linear_schedule(0.0, 1e-3, 10)),
        lambda: optim.MultiOptimizer([optim.SGD(0.1), optim.Adam(1e-3)], [lambda path, _: "head" in path]),
    ],
)
def test_sound_optimizers_keep_descending_along_one_gradient(make):
    cosines = descent_cosines(bench(optimizer=make))
    assert cosines
    assert min(cosines) > 0.05


def test_a_velocity_added_to_the_weights_climbs_after_a_while():
    cosines = descent_cosines(bench(optimizer=Backwards))
    assert cosines[0] > 0.9
    assert cosines[-1] < -0.9


def stepping(raise_by: int = 0, times: int = 1):
    def step(model, optimizer, batch):
        def loss(m):
            return nn.losses.cross_entropy(m(batch[0]), batch[1]).mean()

        for _ in range(times):
            value, gradients = nn.value_and_grad(model, loss)(model)
            optimizer.state["step"] = optimizer.step + raise_by
            optimizer.update(model, gradients)
        return value

    return step


def test_the_count_of_steps_rises_by_one_an_update_and_by_more_where_it_is_raised():
    given = {"optimizer": lambda: optim.SGD(optim.linear_schedule(0.1, 0.0, 100))}
    assert steps_per_update(bench(train_step=stepping(), **given)) == 1
    assert steps_per_update(bench(train_step=stepping(times=3), **given)) == 1
    assert steps_per_update(bench(train_step=stepping(raise_by=3), **given)) == 4
