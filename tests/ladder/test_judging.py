"""Verdicts of the rungs short and trained on measurements that are given."""

from __future__ import annotations

import itertools
import time

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest

from mlxstories.batch import Batch
from mlxstories.ladder import Subject
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.batches import read_batch
from mlxstories.ladder.bench.data.baselines import Baselines
from mlxstories.ladder.bench.evaluation.averages import MEAN, averages
from mlxstories.ladder.bench.evaluation.evaluation import Reported, Twice, evaluated_twice, oracle_reported
from mlxstories.ladder.bench.generation.decoding import Continuation, Decoding, decoding
from mlxstories.ladder.bench.training.short import (
    ShortTraining,
    baselines,
    corrected,
    cost_of_a_third,
    elsewhere,
    known_loss,
    longer,
    rows,
    short_training,
    slower,
    steps_for,
    unramped,
)
from mlxstories.ladder.bench.training.trial import Trial
from mlxstories.ladder.registry import CHECKS
from mlxstories.ladder.verdict import Verdict

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
        "evaluate": lambda model, batches: {},
        "generate": lambda model, prompt, n: [],
        "floor": 1.0,
    }
    return Bench(Subject(**{**given, **fields}), 0)


def ask(name: str, on: Bench) -> Verdict:
    check = CHECKS[name]
    return check.ask(on, check.gauges())


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
        slower: trial(tenth),
    }
    if later is not None:
        on.taken[longer] = trial(later)
    return on


def codes(verdict: Verdict) -> list[tuple[str, str]]:
    return [(draft.code, draft.severity) for draft in verdict.drafts]


def test_a_longer_run_below_word_frequencies_is_no_note():
    verdict = ask("better than word frequencies", short(bench(), 4.0, 4.0, 4.0, later=3.5))
    assert verdict.status == "passed" and not verdict.drafts
    assert "3.50 after" in verdict.detail


@pytest.mark.parametrize("later", [4.0, 3.97, float("nan")])
def test_a_longer_run_that_stays_at_word_frequencies_is_an_error(later):
    verdict = ask("better than word frequencies", short(bench(), 4.0, 4.0, 4.0, later=later))
    assert codes(verdict) == [("no-better-than-unigram", "error")] and verdict.status == "failed"


def test_a_loss_that_still_falls_is_a_note():
    verdict = ask("better than word frequencies", short(bench(), 4.5, 4.2, 4.0))
    assert codes(verdict) == [("no-better-than-unigram", "note")]


@pytest.mark.parametrize(
    ("went", "found"),
    [
        ({"known": 3.0}, [("overfitting", "warning")]),
        ({"tenth": 3.5}, [("learning-rate-too-large", "error")]),
        ({"best": 3.9}, []),
    ],
)
def test_why_training_is_no_better_than_frequencies(went, found):
    assert codes(ask("better than word frequencies", short(bench(), 4.0, 4.0, 4.0, **went))) == found


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
    assert codes(ask("steps of the right size", on)) == found


@pytest.mark.parametrize("there", [2.1, 3.9])
def test_a_tenth_of_the_rate_is_tried_from_other_first_weights_too(there):
    on = short(bench(), 4.0, 4.0, 4.0, tenth=2.0)
    on.taken |= {cost_of_a_third: 0.0, unramped: trial(4.0), elsewhere: {"own": 4.0, "slower": there}}
    found = [("learning-rate-too-large", "error")] if there < 3 else []
    assert codes(ask("steps of the right size", on)) == found


def test_elsewhere_is_the_same_training_from_other_first_weights():
    on = bench(optimizer=lambda: optim.Adam(1e-2))
    ends = elsewhere(on)
    assert len({ends["own"], ends["corrected"], ends["slower"], short_training(on).loss}) == 4
    assert ends["own"] == pytest.approx(short_training(on).loss, rel=0.2)


@pytest.mark.parametrize(
    ("floor", "best", "failed"), [(1.0, 3.0, 0), (3.6, 3.0, 1), (3.2, 3.4, 1), (3.0, 3.0, 0)]
)
def test_below_the_floor(floor, best, failed):
    verdict = ask("not below the floor", short(bench(floor=floor), 3.6, 3.4, 3.1, best=best))
    assert len(verdict.drafts) == failed
    assert all(draft.code == "too-good-to-be-true" for draft in verdict.drafts)


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


@pytest.mark.parametrize(
    ("report", "found"),
    [
        (lambda w, parts: w[MEAN].loss, []),
        (lambda w, parts: w["mean of batch means"].loss, [("metric-mismatch", "warning")]),
        (lambda w, parts: w["padding"].loss, [("padding-in-accuracy", "error")]),
        (lambda w, parts: 0.9 * w[MEAN].loss + 0.1 * w[MEAN].flat, [("smoothed-validation-loss", "error")]),
        (lambda w, parts: w[MEAN].loss / np.log(2), [("metric-mismatch", "error")]),
        (lambda w, parts: parts[0][MEAN].loss, [("metric-mismatch", "error")]),
        (lambda w, parts: float("nan"), [("metric-mismatch", "error")]),
    ],
)
def test_what_a_validation_loss_is(report, found):
    rng = np.random.default_rng(0)
    logits = [3 * rng.standard_normal((3, T, V)) for _ in range(3)]
    kept = [np.arange(T) < rng.integers(2, T, (3, 1)) for _ in range(3)]
    batches = [read_batch((rng.integers(0, V, (3, T)), rng.integers(0, V, (3, T)), k * 1.0)) for k in kept]
    parts = [averages([a], [b]) for a, b in zip(logits, batches, strict=True)]
    on = bench()
    on.taken[oracle_reported] = Reported({"loss": report(averages(logits, batches), parts)}, logits, batches)
    verdict = ask("validation agrees with ours", on)
    assert codes(verdict) == found
    assert ask("its accuracy agrees with ours", on).status == "skipped"


def test_targets_of_minus_100_are_left_out_of_averages():
    rng = np.random.default_rng(0)
    logits, ids = [rng.standard_normal((2, T, V))], rng.integers(0, V, (2, 2, T))
    kept = np.arange(T) < T - 2
    masked = read_batch((ids[0], ids[1], np.broadcast_to(kept * 1.0, (2, T))))
    told = masked.with_(targets=np.where(kept, masked.targets, -100), mask=np.ones((2, T)))
    assert averages(logits, [told])[MEAN] == averages(logits, [masked])[MEAN]


def test_two_evaluations_that_differ_are_not_compared():
    on = bench()
    rows = read_batch((np.zeros((1, 2), int), np.zeros((1, 2), int)))
    first = Reported({"loss": 2.0, "accuracy": 0.5}, [np.zeros((1, 2, V))], [rows])
    on.taken |= {oracle_reported: None, evaluated_twice: Twice(first, {"loss": 2.1, "accuracy": 0.5})}
    assert ask("validation agrees with ours", on).status == "skipped"
    assert codes(ask("validation is repeatable", on)) == [("dropout-in-evaluation", "error")]


@pytest.mark.parametrize(
    ("behind", "repeats", "found"),
    [
        ([0.0, 0.0, 5e-4], True, []),
        ([0.0, 0.5, 0.0], True, ["cache-mismatch"]),
        ([0.5, 0.0, 0.0], True, ["generation-mismatch"]),
        ([0.0, 0.0, 0.0], False, ["generation-mismatch"]),
        ([0.0, float("nan"), 0.0], True, ["cache-mismatch"]),
    ],
)
def test_tokens_that_are_not_the_argmax(behind, repeats, found):
    on = bench()
    on.taken[decoding] = Decoding([Continuation("untrained", [1, 2], [3, 4, 5], behind)], repeats)
    verdict = ask("generation is the argmax", on)
    assert [draft.code for draft in verdict.drafts] == found
    assert ask("greedy text does not loop", on).status == "passed"


def test_decoding_that_tells_nothing_is_an_error_unless_all_choices_are_one_that_may_end_a_text():
    assert codes(ask("generation is the argmax", bench())) == [("generation-mismatch", "error")]

    class Ended(Plain):
        def __call__(self, tokens):
            return super().__call__(tokens) + 1e3 * (mx.arange(V) == 2)

    verdict = ask("generation is the argmax", bench(model=Ended))
    assert verdict.status == "skipped" and not verdict.drafts


def test_one_token_for_ever_is_noted():
    on = bench()
    on.taken[decoding] = Decoding([Continuation("untrained", [1], [2] + 8 * [3], 9 * [0.0])], True)
    assert codes(ask("greedy text does not loop", on)) == [("repetition-loop", "note")]


def long_rows():
    ids = mx.zeros((4, 512), mx.int32)
    return [Batch(ids, ids, mx.ones(ids.shape))]


def test_misses_that_are_counted_as_hits_are_no_average_of_known_logits():
    def asks(model, batches):
        return {"batches": len([model(batch.inputs) for batch in batches])}

    averages = oracle_reported(bench(evaluate=asks, val_batches=long_rows)).averages.values()
    pairs = itertools.product((average.accuracy for average in averages), repeat=2)
    assert min(abs(1 - one - other) for one, other in pairs) > 0.05
