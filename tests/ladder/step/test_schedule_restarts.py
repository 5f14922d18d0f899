"""Rates that begin again, and those that only rise and fall."""

from __future__ import annotations

import math

import mlx.optimizers as optim
import pytest

from mlxstories.ladder.bench.step.schedule_restarts import count_restarts

RUN, EPOCH = 240, 60


def over(schedule):
    return count_restarts([float(schedule(step)) for step in range(RUN)])


@pytest.mark.parametrize(
    ("schedule", "times"),
    [
        (lambda step: min((step % EPOCH + 1) / 200, 1), 3),  # a warmup for each epoch
        (lambda step: 1 + math.cos(math.pi * step / 4), 30),  # a cosine over 4 epochs, given as 4
        (lambda step: 1 + math.cos(math.pi * step / RUN), 0),
        (lambda step: min((step + 1) / 200, 1), 0),
        (lambda step: 1.0, 0),
        (lambda step: 0.0, 0),
        (optim.join_schedules([optim.linear_schedule(0, 1e-3, 20), optim.cosine_decay(1e-3, 200)], [20]), 0),
        (
            lambda step: 1 + math.cos(math.pi * ((step - 60) % 120 / 120 if step >= 60 else step / 60)),
            2,
        ),  # doubling
    ],
)
def test_how_often_a_rate_begins_again(schedule, times):
    assert over(schedule) == times
