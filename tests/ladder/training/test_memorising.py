"""A few stories learned by heart: honest ticks, the best point of a run, and no verdict by the clock."""

from __future__ import annotations

import time

import mlx.core as mx
import mlx.optimizers as optim
import pytest
from tiny import Tiny, subject

from mlxstories.ladder import diagnose
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.training.memorising import memorised, memorising_steps, start_loss
from mlxstories.ladder.bench.training.trial import Trial


def status_of(diagnosis, name):
    return next(line for rung in diagnosis.rungs for line in rung.checks if line.name == name)


def assert_no_tick_over_a_failed_check(diagnosis):
    for rung in diagnosis.rungs:
        assert rung.status == "failed" or all(line.status != "failed" for line in rung.checks), rung


def test_stories_not_memorised_are_a_failed_check_and_a_named_cause():
    diagnosis = diagnose(
        subject(optimizer=lambda: optim.AdamW(1e-6, bias_correction=True)), rungs=["minimal", "sweep"]
    )
    assert status_of(diagnosis, "memorises a few stories").status == "failed"
    assert [f.code for f in diagnosis.findings] == ["learning-rate-too-small"]
    assert_no_tick_over_a_failed_check(diagnosis)


def warming(weight_decay=0.01):
    rates = [optim.linear_schedule(2e-6, 1e-2, 5000), optim.cosine_decay(1e-2, 14000, 1e-3)]
    rate = optim.join_schedules(rates, [5000])
    return optim.AdamW(rate, weight_decay=weight_decay, bias_correction=True)


WARMUPS = {
    "one": warming,
    "several": lambda: optim.MultiOptimizer([warming(), warming(0.0)], [lambda _, array: array.ndim >= 2]),
}


@pytest.mark.parametrize("name", WARMUPS)
def test_a_warmup_with_weights_of_16_bits_is_no_small_rate(name):
    def half():
        model = Tiny()
        model.set_dtype(mx.bfloat16)
        return model

    # The first updates, of 2e-6, are lost between numbers that are 1e-3 apart; those at the peak are not.
    made = subject(model=half, optimizer=WARMUPS[name], updates=19_000)
    diagnosis = diagnose(made, rungs=["minimal", "sweep"])
    assert [f.code for f in diagnosis.findings] == []


def test_where_a_cause_is_known_memorising_is_skipped_for_it():
    diagnosis = diagnose(subject(model=lambda: Tiny(0.5)), rungs=["init", "sweep"])
    line = status_of(diagnosis, "memorises a few stories")
    assert line.status == "skipped" and "future-leak" in line.detail
    assert {rung.name: rung.status for rung in diagnosis.rungs}["minimal"] == "passed"
    assert_no_tick_over_a_failed_check(diagnosis)


@pytest.mark.parametrize("points, learned", [([0.3, 0.9], True), ([0.9, 0.3], True), ([0.9, 0.8], False)])
def test_a_run_that_memorised_on_the_way_has_memorised(points, learned):
    bench = Bench(subject(), 0)
    start = start_loss(bench)
    trial = Trial(None, None, points=[(step, left * start, 0.0) for step, left in enumerate(points, 1)])
    assert memorised(bench, trial) is learned


def test_a_run_that_broke_down_has_not_memorised():
    bench = Bench(subject(), 0)
    assert not memorised(bench, Trial(None, None, points=[(1, 0.1, 1.0), (2, float("nan"), 0.0)]))


@pytest.mark.long
def test_a_slow_machine_changes_no_count_of_steps():
    def step(model, optimizer, batch):
        time.sleep(0.4)
        return mx.array(1.0)

    assert (
        memorising_steps(Bench(subject(train_step=step), 0)) == memorising_steps(Bench(subject(), 0)) == 100
    )
    brief = Bench(subject(), 0)
    brief.brief = True
    assert memorising_steps(brief) == 40
