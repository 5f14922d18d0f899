"""The climb: what it asks and skips, its clock, and that the user's state is left as found."""

from __future__ import annotations

import json
import random
import time

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten
from tiny import Placed, Tiny, adamw, subject

from mlxstories.errors import StoriesError
from mlxstories.ladder import assert_healthy, check_before_training, climb, diagnose
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.samples import probe_batch
from mlxstories.ladder.bench.scoring import scored
from mlxstories.ladder.registry import RUNGS
from mlxstories.ladder.time_limit import TimeLimitError, time_limit


def test_the_users_objects_and_random_states_are_left_as_found():
    model, optimizer = Tiny(), optim.AdamW(1e-2, bias_correction=True)
    mx.eval(model.parameters())
    weights = {name: np.array(a) for name, a in tree_flatten(model.parameters())}
    for seeder in (mx.random.seed, np.random.seed, random.seed):
        seeder(5)
    key, state = np.array(mx.random.state[0]), random.getstate()
    numbers = np.random.get_state()[1].copy()
    diagnose(subject(model=lambda: model, optimizer=lambda: optimizer), rungs=["data", "init", "minimal"])
    assert all(np.array_equal(np.array(a), weights[n]) for n, a in tree_flatten(model.parameters()))
    assert int(optimizer.step) == 0 and set(optimizer.state) == {"step", "learning_rate"}
    assert np.array_equal(np.array(mx.random.state[0]), key)
    assert random.getstate() == state and np.array_equal(np.random.get_state()[1], numbers)


def test_a_sound_setup_climbs_the_whole_ladder():
    diagnosis = assert_healthy(subject())
    assert [rung.name for rung in diagnosis.rungs] == [*RUNGS]


def test_what_is_left_out_is_skipped_and_said_so():
    diagnosis = diagnose(subject(), rungs=["data", "trained"])
    skipped = {c.name for r in diagnosis.rungs for c in r.checks if c.status == "skipped"}
    assert {"validation is unseen", "generation is the argmax", "validation agrees with ours"} <= skipped
    json.dumps(diagnosis.to_dict())
    assert [rung.name for rung in diagnosis.rungs] == ["data", "minimal", "trained"]


def test_the_quick_check_finds_a_leak_and_clears_the_healthy():
    assert check_before_training(subject()).healthy
    found = check_before_training(subject(model=lambda: Tiny(0.5)))
    assert [f.code for f in found.findings if f.severity == "error"] == ["future-leak"]


def test_assert_healthy_tells_what_is_wrong():
    with pytest.raises(AssertionError, match=r"future-leak at .*\.py:\d+") as raised:
        assert_healthy(subject(model=lambda: Tiny(0.5)), rungs=["init"])
    assert "the model sees what it has to predict\n  Fix: add" in str(raised.value)


def test_an_error_that_is_accepted_is_a_warning_and_hides_no_other():
    leaky = subject(model=lambda: Tiny(0.5))
    diagnosis = assert_healthy(leaky, rungs=["init"], accept=["future-leak"])
    (leak,) = [f for f in diagnosis.findings if f.code == "future-leak"]
    assert leak.severity == "warning" and leak.evidence["accepted"]
    skipped = {line.name: line.detail for line in diagnosis.rungs[0].checks if line.status == "skipped"}
    assert skipped["a prefix alone gives the same logits"] == "future-leak comes first"
    slow = subject(model=lambda: Tiny(0.5), optimizer=adamw(1e-7))
    with pytest.raises(AssertionError, match="learning-rate-too-small"):
        assert_healthy(slow, rungs=["init", "sweep"], accept=["future-leak"])


def test_a_check_that_passes_with_a_warning_is_told_from_one_that_passes():
    def tied():
        model = Tiny()
        model.head.weight = model.embed.weight
        return model

    (rung,) = diagnose(subject(model=tied), rungs=["init"]).rungs
    assert [line.name for line in rung.checks if line.codes] == ["tied weights are one"]


def test_an_unknown_rung_is_refused():
    with pytest.raises(StoriesError, match="rung"):
        diagnose(subject(), rungs=["cellar"])


def test_the_time_limit_interrupts_and_restores():
    with pytest.raises(TimeLimitError), time_limit(0.05):
        while True:
            time.sleep(0.01)
    with time_limit(None):
        pass


def test_a_cause_that_was_found_is_not_folded_under_the_clock():
    calls = []

    def step(model, optimizer, batch):
        calls.append(1)
        raise TimeLimitError("not finished after 1 s")

    for future, first in ((0.0, "subject-error"), (1.0, "future-leak")):
        bench = Bench(subject(model=lambda f=future: Tiny(future=f), train_step=step))
        climbing = climb._Climb(bench, lambda kind, value: None)
        rungs = {name: climb.checks_of(name) for name in ("init", "minimal", "sweep")}
        diagnosis = climbing.through(rungs, None)
        assert diagnosis.findings[0].code == first and diagnosis.findings[0].severity == "error"
        assert diagnosis.rungs[-1].status == "skipped" and diagnosis.exit_code == 1
        (clock,) = [f for f in diagnosis.findings if f.code == "subject-error"]
        assert clock.message.startswith("time ran out: the climb was not finished after 1 s")
        assert "raise --timeout" in clock.fix and "consequences" not in clock.evidence
    assert calls


def test_a_part_that_stays_in_evaluation_mode_does_so_after_all_that_looks():
    model = Placed()
    model.dropout.eval()
    bench = Bench(subject(model=lambda: model))
    scored(bench, bench.model(), probe_batch(bench, 0))
    assert model.training and not model.dropout.training
    diagnose(subject(model=lambda: model), rungs=["data", "init", "minimal"])
    assert model.training and not model.dropout.training
