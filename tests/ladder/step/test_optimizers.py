"""Schedules read from outside, and rates that are held."""

from __future__ import annotations

import math

import mlx.optimizers as optim
import pytest
from tiny import Tiny, stepping, subject, warm

from mlxstories.ladder import diagnose
from mlxstories.ladder.bench.step.optimizers import held_at, read_schedule


def test_a_schedule_is_read_from_outside():
    warmup = optim.join_schedules([optim.linear_schedule(0.0, 1e-3, 40), optim.cosine_decay(1e-3, 400)], [40])
    schedule = read_schedule(optim.Adam(warmup))
    assert schedule.scheduled and schedule.peak == pytest.approx(1e-3)
    assert 39 <= schedule.peak_step <= 41
    assert not read_schedule(optim.Adam(1e-3)).scheduled


def test_where_schedules_peak_end_and_settle_is_found_to_the_update():
    line = read_schedule(optim.AdamW(optim.linear_schedule(1e-3, 0.0, 375)))
    assert (line.peak_step, line.settled, line.end) == (0, 375, 372)  # 1 % is left after 371.25
    warmed = read_schedule(
        optim.AdamW(
            optim.join_schedules([optim.linear_schedule(0, 1e-3, 310), optim.cosine_decay(1e-3, 700)], [310])
        )
    )
    assert warmed.peak == pytest.approx(1e-3, rel=1e-6)
    assert warmed.peak_step == 307  # 0.99 of 310
    # (1 + cos(pi x)) / 2 = 0.01 at x = 0.9362
    assert warmed.end == 310 + math.ceil(0.9362 * 700)
    forever = read_schedule(optim.AdamW(warm(50)))
    assert forever.end is forever.settled is None


def test_rates_are_held_for_a_while():
    def warming():
        rates = [optim.linear_schedule(2e-6, 1e-2, 5000), optim.cosine_decay(1e-2, 14000, 1e-3)]
        return optim.AdamW(optim.join_schedules(rates, [5000]), bias_correction=True)

    optimizer = optim.MultiOptimizer([warming(), warming()], [lambda _, array: array.ndim >= 2])
    with held_at(optimizer, [1e-2, 2e-2]):
        optimizer.update(Tiny(), Tiny().parameters())
        assert [part.learning_rate.item() for part in optimizer.optimizers] == [
            pytest.approx(1e-2),
            pytest.approx(2e-2),
        ]
    optimizer.update(Tiny(), Tiny().parameters())
    assert optimizer.learning_rate.item() == pytest.approx(2e-6 + (1e-2 - 2e-6) / 5000)


def flat(step):
    return 1e-2


@pytest.mark.parametrize("train_step", [None, stepping()])
def test_a_schedule_that_returns_a_number_is_told_with_its_line(train_step):
    def made():
        return optim.MultiOptimizer([optim.Adam(1e-2), optim.AdamW(flat)], [lambda name, _: "head" in name])

    (found,) = diagnose(subject(optimizer=made, train_step=train_step), rungs=["minimal"]).findings
    assert found.code == "subject-error" and "schedule of its learning_rate returns a float" in found.message
    assert found.where["line"] == flat.__code__.co_firstlineno and found.where["file"] == __file__


def test_a_number_is_enough_for_an_optimizer_that_takes_one():
    class Plain(optim.Optimizer):
        def __init__(self, rate):
            super().__init__()
            self._maybe_schedule("learning_rate", rate)

        def init_single(self, parameter, state):
            pass

        def apply_single(self, gradient, parameter, state):
            return parameter - self.learning_rate * gradient

    found = diagnose(subject(optimizer=lambda: Plain(lambda step: 1.0)), rungs=["minimal"]).findings
    assert [finding.message for finding in found if finding.code == "subject-error"] == []
