"""Trials: updates that are scaled, warmed up as the run's are, corrected."""

from __future__ import annotations

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten
from tiny import subject, warm

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.epochs import train_epoch
from mlxstories.ladder.bench.samples import minimal_batch
from mlxstories.ladder.bench.step.adam import overstep
from mlxstories.ladder.bench.training.trial import train


def test_scaling_the_update_is_scaling_the_rate():
    def last(rate, scale):
        bench = Bench(subject(optimizer=lambda: optim.SGD(rate)), 0)
        trial = train(bench, [minimal_batch(bench)], 5, scale=scale)
        return {name: np.array(a) for name, a in tree_flatten(trial.model.parameters())}

    scaled, plain = last(0.01, 10.0), last(0.1, 1.0)
    for name in plain:
        np.testing.assert_allclose(scaled[name], plain[name], rtol=1e-4, atol=1e-6)


def moves(optimizer, steps: int = 20, updates: int | None = None, **options) -> list[float]:
    """By how much each update of a trial moves a weight whose gradient is 1."""

    def step(model, optimizer, batch):
        old = model.embed.weight
        moved = optimizer.apply_gradients({"w": mx.ones((1,))}, {"w": mx.zeros((1,))})["w"]
        model.embed.weight = old - moved
        return mx.array(1.0)

    trail: list[float] = []

    def seen(before, after, _):
        trail.append(float(before["embed.weight"][0, 0]))
        return after

    bench = Bench(subject(optimizer=optimizer, train_step=step, updates=updates))
    trial = train(bench, train_epoch(bench).batches, steps, transform=seen, **options)
    trail.append(float(trial.model.embed.weight[0, 0]))
    return np.diff(trail).tolist()


@pytest.mark.parametrize(("updates", "climb"), [(5000, 2), (2000, 5), (1000, 5)])
def test_a_trial_warms_up_for_the_share_of_the_run_that_the_subject_does(updates, climb):
    found = moves(lambda: optim.SGD(warm(500, 0.5)), updates=updates)
    wanted = [0.5 * min(1.0, (step + 1) / climb) for step in range(20)]
    np.testing.assert_allclose(found[1:], wanted[1:], rtol=1e-3)  # the first rate is 0
    as_it_is = moves(lambda: optim.SGD(warm(500, 0.5)), updates=updates, plain=True)
    np.testing.assert_allclose(as_it_is, [0.5 * step / 500 for step in range(20)], atol=1e-6)


@pytest.mark.parametrize("beside", ["a part", "another"])
def test_a_correction_leaves_the_updates_of_other_optimisers_alone(beside):
    other = optim.SGD(0.5)

    def made():
        both = [optim.Adam(0.1), optim.SGD(0.5)], [lambda name, _: "embed" in name]
        return optim.MultiOptimizer(*both) if beside == "a part" else optim.Adam(0.1)

    def step(model, optimizer, batch):
        weights = {name: {"weight": model[name].weight} for name in ("embed", "head")}
        ones = {name: {"weight": mx.ones_like(model[name].weight)} for name in weights}
        if beside == "a part":
            model.update(optimizer.apply_gradients(ones, weights))
        else:
            model.update(optimizer.apply_gradients({"embed": ones["embed"]}, {"embed": weights["embed"]}))
            model.update(other.apply_gradients({"head": ones["head"]}, {"head": weights["head"]}))
        return mx.array(1.0)

    def moved(name, corrected):
        bench = Bench(subject(optimizer=made, train_step=step))
        model = bench.model()
        before = model[name].weight
        train(bench, train_epoch(bench).batches, 3, model=model, corrected=corrected)
        return float((model[name].weight - before).max())

    assert moved("embed", True) == pytest.approx(-0.3, rel=1e-3) and moved("embed", False) < -0.6
    assert moved("head", True) == moved("head", False) == pytest.approx(-1.5, rel=1e-3)


def test_corrected_updates_are_those_of_a_corrected_adam():
    plain = moves(lambda: optim.Adam(0.1), corrected=True)
    np.testing.assert_allclose(plain, moves(lambda: optim.Adam(0.1, bias_correction=True)), rtol=1e-3)
    assert moves(lambda: optim.Adam(0.1))[0] == pytest.approx(0.316, abs=1e-3)
    assert overstep(0.9, 0.999, np.arange(1, 1000)).max() == pytest.approx(6.6, abs=0.1)
