"""The ladder's own parts: recovered losses, dependence, overlap, folding, protection of the user's state, watching."""

from __future__ import annotations

import json
import math
import random
import time

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from tiny import Tiny, batches, subject

from mlxstories.batch import Batch
from mlxstories.errors import StoriesError
from mlxstories.findings import CAUSES, fold
from mlxstories.ladder import (
    CATALOGUE,
    Finding,
    Watch,
    assert_healthy,
    check_before_training,
    diagnose,
)
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.batches import UnusableBatch, read_batch
from mlxstories.ladder.bench.data.overlap import row_overlap, text_overlap, window_overlap
from mlxstories.ladder.bench.data.rows import fillers_of, shift_rates
from mlxstories.ladder.bench.loss.objective import recover
from mlxstories.ladder.bench.material import minimal_batch
from mlxstories.ladder.bench.step.optimizers import read_schedule
from mlxstories.ladder.bench.training.trial import train
from mlxstories.ladder.checks.data.padding import padding_of
from mlxstories.ladder.registry import CHECKS
from mlxstories.ladder.time_limit import TimeLimitError, time_limit


def loss_of(reduce=True, smoothing=0.0, sign=1.0, softmax=False, shift=0):
    def loss(model, batch):
        logits = model(batch.inputs)
        targets, mask = batch.targets, batch.mask
        if softmax:
            logits = mx.softmax(logits, axis=-1)
        if shift:
            logits, targets, mask = logits[:, :-shift], targets[:, shift:], mask[:, shift:]
        nats = nn.losses.cross_entropy(logits, targets, label_smoothing=smoothing)
        return sign * ((nats * mask).sum() / mask.sum() if reduce else nats.mean())

    return loss


@settings(max_examples=15, deadline=None)
@given(
    smoothing=st.sampled_from([0.0, 0.02, 0.1, 0.3]),
    sign=st.sampled_from([1.0, -1.0]),
    softmax=st.booleans(),
    shift=st.sampled_from([0, 1]),
    masked=st.booleans(),
)
def test_a_loss_is_recovered_from_its_values(smoothing, sign, softmax, shift, masked):
    loss = loss_of(masked, smoothing, sign, softmax, shift)
    bench = Bench(subject(loss=loss), 0)
    found = recover(bench, lambda stub, batch: float(loss(stub, batch.user())), with_mask=True)
    assert found is not None
    assert (found.sign, found.softmaxes, found.shift) == (sign, 2 if softmax else 1, shift)
    assert found.masked is masked
    assert found.smoothing == pytest.approx(smoothing, abs=0.01)


def test_a_loss_of_another_kind_is_not_guessed():
    def focal(model, batch):
        p = mx.exp(-nn.losses.cross_entropy(model(batch.inputs), batch.targets))
        return -((1 - p) ** 2 * mx.log(p)).mean()

    bench = Bench(subject(loss=focal), 0)
    assert recover(bench, lambda stub, batch: float(focal(stub, batch.user())), with_mask=True) is None


def test_shift_rates_find_the_right_place_and_forgive_seams():
    rows = np.random.default_rng(0).integers(1, 50, (6, 41))
    rows[:, 20] = 0  # documents end here, and their end token is a target only
    inputs, targets = rows[:, :-1].copy(), rows[:, 1:]
    inputs[:, 20] = 7
    batch = read_batch((inputs, targets))
    rates, _ = shift_rates([batch])
    assert rates[1] == 1.0 and max(v for k, v in rates.items() if k != 1) < 0.2
    late, _ = shift_rates([read_batch((rows[:, :-3], rows[:, 3:]))])
    assert late[3] == 1.0


def test_padding_is_a_token_that_repeats_at_the_ends_alone():
    def padding(*batch):
        return padding_of(fillers_of([read_batch(batch)]), CHECKS["padding is masked"].gauges())

    rng = np.random.default_rng(0)
    rows = rng.integers(1, 50, (8, 30))
    rows[:, 22:] = 0
    assert padding(rows, rows).token == 0
    assert padding(rows, rows, (rows > 0).astype(np.float32)) is None
    common = np.where(rng.random((64, 30)) < 0.7, 0, rng.integers(1, 50, (64, 30)))
    assert padding(common, common) is None


def test_overlap_counts_what_validation_shares():
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(300)]
    stories = [" ".join(rng.choice(words, 60)) for _ in range(60)]
    assert text_overlap(stories[:40], stories[40:]) == (0.0, 0.0)
    renamed = [story.replace("w1 ", "w2 ").upper() for story in stories[:10]]
    assert text_overlap(stories[:40], renamed + stories[40:50])[0] == 0.5
    rows = rng.integers(0, 500, (20, 64))
    train, val = read_batch((rows, rows)), read_batch((rows[:10, 8:56], rows[:10, 8:56]))
    assert window_overlap([train], [val])[0] == 1.0
    assert window_overlap([train.rows(slice(10, 20))], [val])[0] == 0.0


def test_rows_of_padding_alone_are_no_overlap():
    """They fill up the last batch of both sides."""
    rng = np.random.default_rng(0)

    def side():
        ids = rng.integers(3, 99, (4, 16))
        mask = np.array([1.0, 1.0, 1.0, 0.0])[:, None] * np.ones((4, 16))
        ids[3] = 0
        return [read_batch((ids, ids, mask.astype(np.float32)))]

    assert row_overlap(side(), side()) == (0.0, 0.0)


def test_consequences_are_folded_under_their_cause():
    def finding(code, severity="error"):
        return Finding(code, severity, "data", code)

    kept, folded = fold(
        [
            finding("too-good-to-be-true"),
            finding("future-leak"),
            finding("padding-in-accuracy"),
            finding("overfitting", "note"),
        ]
    )
    assert [f.code for f in kept] == ["future-leak", "padding-in-accuracy", "overfitting"]
    assert [f.code for f in folded] == ["too-good-to-be-true"]
    assert kept[0].evidence["consequences"] == ["too-good-to-be-true"]
    # each may bring the other about: the one that was there first did
    for first, then in (("wrong-loss", "not-finite"), ("not-finite", "wrong-loss")):
        kept, folded = fold([finding(first), finding(then)])
        assert ([f.code for f in kept], [f.code for f in folded]) == ([first], [then])
        assert kept[0].evidence["consequences"] == [then]
    assert all(cause.brings_about <= set(CATALOGUE) for cause in CAUSES)
    assert sorted(CAUSES, key=lambda cause: cause.priority) == list(CAUSES)


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (([[1, 2], [3]], [[1, 2], [3]]), "inputs"),
        ((np.zeros((0, 4)), np.zeros((0, 4))), "empty"),
        ((np.zeros((2, 4)), np.zeros((2, 5))), "shape"),
        ((np.full((2, 4), 0.5), np.zeros((2, 4))), "whole"),
        ((np.full((2, 4), np.nan), np.zeros((2, 4))), "finite"),
        ({"inputs": np.zeros((2, 4))}, "targets"),
        (5, "int"),
    ],
)
def test_an_unusable_batch_says_why(batch, words):
    with pytest.raises(UnusableBatch, match=words):
        read_batch(batch)


def test_batches_come_back_in_the_form_they_had():
    rows = np.arange(12).reshape(3, 4)
    form = {"inputs": mx.array(rows), "targets": rows, "mask": np.ones((3, 4), np.float32), "name": "x"}
    back = read_batch(form).rows(slice(1, 3)).user()
    assert (
        back["name"] == "x"
        and isinstance(back["inputs"], mx.array)
        and isinstance(back["targets"], np.ndarray)
    )
    assert np.array_equal(np.array(back["inputs"]), rows[1:]) and back["mask"].shape == (2, 4)
    assert isinstance(read_batch(next(iter(batches(0)))).user(), Batch)
    assert len(read_batch((rows, rows)).user()) == 2


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


def test_scaling_the_update_is_scaling_the_rate():
    def last(rate, scale):
        bench = Bench(subject(optimizer=lambda: optim.SGD(rate)), 0)
        trial = train(bench, [minimal_batch(bench)], 5, scale=scale)
        return {name: np.array(a) for name, a in tree_flatten(trial.model.parameters())}

    scaled, plain = last(0.01, 10.0), last(0.1, 1.0)
    for name in plain:
        np.testing.assert_allclose(scaled[name], plain[name], rtol=1e-4, atol=1e-6)


def test_a_schedule_is_read_from_outside():
    warmup = optim.join_schedules([optim.linear_schedule(0.0, 1e-3, 40), optim.cosine_decay(1e-3, 400)], [40])
    schedule = read_schedule(optim.Adam(warmup))
    assert schedule.scheduled and schedule.peak == pytest.approx(1e-3)
    assert 39 <= schedule.peak_step <= 41
    assert not read_schedule(optim.Adam(1e-3)).scheduled


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
    with pytest.raises(AssertionError, match="future-leak"):
        assert_healthy(subject(model=lambda: Tiny(0.5)), rungs=["init"])


def test_an_unknown_rung_is_refused():
    with pytest.raises(StoriesError, match="rung"):
        diagnose(subject(), rungs=["cellar"])


def test_a_rate_too_small_is_named_with_its_factor():
    small = subject(optimizer=lambda: optim.AdamW(1e-6, bias_correction=True))
    first = diagnose(small, rungs=["sweep"]).findings[0]
    assert first.code == "learning-rate-too-small" and first.evidence["learning_rate"] == pytest.approx(1e-6)


def test_the_time_limit_interrupts_and_restores():
    with pytest.raises(TimeLimitError), time_limit(0.05):
        while True:
            time.sleep(0.01)
    with time_limit(None):
        pass


def codes(watch: Watch, reports) -> list[str]:
    return [f.code for step, report in enumerate(reports) for f in watch(step, **report)]


def test_the_watch_tells_each_trouble_once():
    falling = [{"loss": 6 * 0.9**i + 1, "grad_norm": 1.0, "val_loss": 2.0} for i in range(40)]
    assert codes(Watch(floor=1.5, vocab_size=500), falling) == []
    assert codes(Watch(), [{"loss": math.nan}, {"loss": math.nan}]) == ["not-finite"]
    assert codes(Watch(vocab_size=500), [{"loss": 6.21}] * 30) == ["learning-rate-too-small"]
    assert codes(Watch(floor=1.5), [{"val_loss": 1.2}] * 3) == ["too-good-to-be-true"]
    assert codes(Watch(), [{"grad_norm": 1.0}] * 10 + [{"grad_norm": 500.0}] * 5) == ["exploding-gradient"]
    assert codes(Watch(), [{"grad_norm": 1e-9}] * 5) == ["vanishing-gradient"]
    diverging = [{"loss": 6.0 - 0.1 * i} for i in range(20)] + [{"loss": 9.0}] * 5
    assert codes(Watch(vocab_size=500), diverging) == ["learning-rate-too-large"]
    memorising = [
        {"loss": 3 - 0.3 * i, "val_loss": 3 - 0.2 * i if i < 4 else 2.6 + 0.1 * i} for i in range(9)
    ]
    assert codes(Watch(), memorising) == ["overfitting"]
    assert codes(Watch(), [report | {"loss": 9.0} for report in memorising]) == []  # training got worse too


def test_a_cause_that_was_found_is_not_folded_under_the_clock():
    calls = []

    def step(model, optimizer, batch):
        calls.append(1)
        raise TimeLimitError("not finished after 1 s")

    from mlxstories.ladder import climb

    for future, first in ((0.0, "subject-error"), (1.0, "future-leak")):
        bench = Bench(subject(model=lambda f=future: Tiny(future=f), train_step=step))
        climbing = climb._Climb(bench, lambda kind, value: None)
        rungs = {name: climb.checks_of(name) for name in ("init", "minimal", "sweep")}
        diagnosis = climbing.through(rungs, None)
        assert diagnosis.findings[0].code == first and diagnosis.findings[0].severity == "error"
        assert diagnosis.rungs[-1].status == "skipped"
    assert calls
