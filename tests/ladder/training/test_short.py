"""The short training: against word frequencies, word order and the floor, at other rates and from other weights."""

from __future__ import annotations

import itertools
import time

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from tiny import ask, judged, told

from mlxstories.batch import Batch
from mlxstories.ladder import Subject
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.data.baselines import Baselines
from mlxstories.ladder.bench.training.short import (
    ShortTraining,
    baselines,
    corrected,
    cost_of_a_third,
    elsewhere,
    known_loss,
    known_unigram,
    longer,
    rows,
    short_training,
    slower,
    steps_for,
    unramped,
)
from mlxstories.ladder.bench.training.trial import Trial

V, T = 11, 12


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(V, 8)
        self.head = nn.Linear(8, V)

    def __call__(self, tokens):
        return self.head(self.embed(tokens))


def train_batches(seed):
    rng = np.random.default_rng(seed)
    for _ in range(4):
        rows = np.cumsum(rng.integers(1, 3, (4, T + 1)), axis=1) % V
        yield Batch(mx.array(rows[:, :-1]), mx.array(rows[:, 1:]), mx.ones((4, T)))


def bench(**fields) -> Bench:
    given = {
        "model": Plain,
        "vocab_size": V,
        "train_batches": train_batches,
        "val_batches": lambda: train_batches(99),
        "floor": 1.0,
    }
    return Bench(Subject(**{**given, **fields}), 0)


def trial(*losses: float) -> Trial:
    points = [(10 * i, loss, 0.1) for i, loss in enumerate(losses, 1)]
    return Trial(None, None, losses=[1.0] * 10 * len(losses), points=points)


def short(
    on: Bench,
    *losses: float,
    unigram=4.0,
    best=3.0,
    margin=0.02,
    known=4.0,
    easy=4.0,
    tenth=4.2,
    later=None,
    apart=True,
):
    """Put a short training that went so on the bench."""
    went = trial(*losses)
    on.taken |= {
        short_training: ShortTraining(went, None, True, apart, len(went.losses), margin),
        baselines: Baselines(unigram, best, best, best),
        known_loss: known,
        known_unigram: easy,
        slower: trial(tenth),
    }
    if later is not None:
        on.taken[longer] = trial(later)
    return on


def test_a_longer_run_below_word_frequencies_is_no_note():
    verdict = ask("better than word frequencies", short(bench(), 4.0, 4.0, 4.0, later=3.5))
    assert verdict.status == "passed" and not verdict.drafts
    assert "3.50 after" in verdict.detail


@pytest.mark.parametrize("later", [4.0, 3.97, float("nan")])
def test_a_longer_run_that_stays_at_word_frequencies_is_an_error(later):
    verdict = ask("better than word frequencies", short(bench(), 4.0, 4.0, 4.0, later=later))
    assert told(verdict)[1] == [("no-better-than-unigram", "error")] and verdict.status == "failed"


def test_a_loss_that_still_falls_is_a_note():
    verdict = ask("better than word frequencies", short(bench(), 4.5, 4.2, 4.0))
    assert told(verdict)[1] == [("no-better-than-unigram", "note")]


@pytest.mark.parametrize(
    ("went", "found"),
    [
        ({"known": 3.0}, [("overfitting", "warning")]),
        (
            {"known": 3.0, "easy": 3.1, "later": 4.0},
            [("no-better-than-unigram", "error")],
        ),  # easier rows, not known ones
        ({"tenth": 3.5}, [("learning-rate-too-large", "error")]),
        ({"best": 3.9}, []),
    ],
)
def test_why_training_is_no_better_than_frequencies(went, found):
    assert judged("better than word frequencies", short(bench(), 4.0, 4.0, 4.0, **went)) == found


@pytest.mark.parametrize(("updates", "found"), [(20, []), (300, [("overfitting", "warning")])])
def test_rows_are_not_learned_by_heart_in_a_run_that_ends_before(updates, found):
    went = short(bench(updates=updates), 4.0, 4.0, 4.0, known=3.0)
    assert judged("better than word frequencies", went) == found


@pytest.mark.parametrize(
    ("best", "end", "status"), [(3.99, 4.0, "failed"), (3.0, 4.0, "passed"), (3.99, 3.5, "passed")]
)
def test_words_in_no_order_are_told_by_the_floor(best, end, status):
    verdict = ask("the words are in order", short(bench(), 4.0, 4.0, end, best=best))
    assert verdict.status == status


@pytest.mark.parametrize(("there", "found"), [(2.1, [("no-bias-correction", "error")]), (3.9, [])])
def test_steps_are_of_the_wrong_size_where_they_are_so_from_other_first_weights_too(there, found):
    on = short(bench(optimizer=lambda: optim.Adam(1e-2)), 4.0, 4.0, 4.0)
    ends = {"own": 4.0, "corrected": there, "slower": 4.0}
    on.taken |= {corrected: trial(2.0), elsewhere: ends, cost_of_a_third: float("nan")}
    assert judged("steps of the right size", on) == found


@pytest.mark.parametrize("there", [2.1, 3.9])
def test_a_tenth_of_the_rate_is_tried_from_other_first_weights_too(there):
    on = short(bench(), 4.0, 4.0, 4.0, tenth=2.0)
    on.taken |= {cost_of_a_third: 0.0, unramped: trial(4.0), elsewhere: {"own": 4.0, "slower": there}}
    found = [("learning-rate-too-large", "error")] if there < 3 else []
    assert judged("steps of the right size", on) == found


def test_elsewhere_is_the_same_training_from_other_first_weights():
    on = bench(optimizer=lambda: optim.Adam(1e-2))
    ends = elsewhere(on)
    assert len({ends["own"], ends["corrected"], ends["slower"], short_training(on).loss}) == 4
    assert ends["own"] == pytest.approx(short_training(on).loss, rel=0.2)


@pytest.mark.parametrize(
    ("floor", "best", "failed"), [(1.0, 3.0, 0), (3.6, 3.0, 1), (3.2, 3.4, 1), (3.0, 3.0, 0)]
)
def test_a_loss_below_the_floor_is_too_good_to_be_true(floor, best, failed):
    verdict = ask("not below the floor", short(bench(floor=floor), 3.6, 3.4, 3.1, best=best))
    assert len(verdict.drafts) == failed
    assert all(draft.code == "too-good-to-be-true" for draft in verdict.drafts)


def test_a_training_above_the_floor_is_not_told_where_counts_are_below_it():
    verdict = ask("not below the floor", short(bench(floor=2.0), 4.5, 4.4, best=1.0))
    assert verdict.detail == "counts alone reach 1.00 nats, floor 2.00"


def test_rows_that_were_trained_on_are_not_called_held_out():
    known = short(bench(floor=3.6), 3.6, 3.4, 3.1, apart=False)
    assert ask("not below the floor", known).status == "skipped"
    assert ask("better than word frequencies", known).detail.startswith("on rows that it trained on")


@pytest.mark.parametrize(("count", "apart"), [(1, False), (8, True)])
def test_rows_are_spared_where_there_are_enough(count, apart):
    def batches(seed):
        yield from [batch for i in range(count) for batch in train_batches((seed, i))][:count]

    found = rows(bench(train_batches=batches, val_batches=None))
    trained = {row.tobytes() for batch in found.batches for row in batch.inputs}
    assert found.apart is apart is trained.isdisjoint(row.tobytes() for row in found.held.inputs)


def test_a_slow_machine_takes_as_many_steps(monkeypatch):
    seconds = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(seconds)))
    assert short_training(bench()).steps == steps_for(4 * T * V, 0) == 100
    assert steps_for(600_000, 0) == 60 and steps_for(600_000, 10**10) == 40
