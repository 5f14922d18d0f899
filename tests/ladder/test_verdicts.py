"""Verdicts of the rungs data to sweep on measurements that are given, one on each side of a limit."""

from __future__ import annotations

import math
from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlxstories.batch import Batch
from mlxstories.ladder import Subject
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.bench import schedule
from mlxstories.ladder.bench.data.coverage import Coverage, Searched, coverage, searched
from mlxstories.ladder.bench.model.consistency import Change, Repeats, repeats
from mlxstories.ladder.bench.model.untrained import TableReads, table_reads
from mlxstories.ladder.bench.step.adam import uncorrected_betas
from mlxstories.ladder.bench.step.arriving import Arrival, Arriving, arriving, loss_factors
from mlxstories.ladder.bench.step.constants import Constants, constants, gradient_entry
from mlxstories.ladder.bench.step.optimizers import RateCurve
from mlxstories.ladder.bench.step.plan import Plan, plan
from mlxstories.ladder.bench.step.steps import WatchedSteps, watched_steps
from mlxstories.ladder.bench.training.first_updates import Beginning, beginnings
from mlxstories.ladder.bench.training.memorising import memorising
from mlxstories.ladder.bench.training.rates import RateSweep, rate_sweep
from mlxstories.ladder.bench.training.short import short_training, unramped
from mlxstories.ladder.checks.sweep import explaining
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import CHECKS
from mlxstories.ladder.verdict import Verdict

V, T, EPOCH = 11, 12, 10


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(V, 8), nn.Linear(8, V)

    def __call__(self, tokens):
        return self.head(self.embed(tokens))


def batches(seed):
    rng = np.random.default_rng(seed)
    for _ in range(EPOCH):
        rows = rng.integers(0, V, (4, T + 1))
        yield Batch(mx.array(rows[:, :-1]), mx.array(rows[:, 1:]), mx.ones((4, T)))


def judged(name: str, taken: dict) -> Verdict:
    bench = Bench(Subject(model=Plain, vocab_size=V, train_batches=batches), 0)
    bench.taken |= taken
    check = CHECKS[name]
    return check.ask(bench, check.gauges())


@pytest.mark.parametrize("rows", [V - 1, V - 5])
def test_logits_for_too_few_ids_name_the_highest(rows):
    (draft,) = judged("embedding tables", {table_reads: TableReads([], rows, T)}).drafts
    assert draft.evidence == {"id": V - 1, "rows": rows}
    assert f"at least {V} ids" in draft.fix
    assert judged("embedding tables", {table_reads: TableReads([], V, T)}).status == "passed"


def sweep(**losses: float) -> dict:
    """A sweep from a loss of 4 nats whose multiples 1 and 10 end at these."""
    by_scale = {1.0: (losses["own"], 0.1), 10.0: (losses["more"], 0.2)}
    return {rate_sweep: RateSweep(by_scale, 30, 4.0)}


@pytest.mark.parametrize(
    ("own", "more", "helps"),
    [
        (4.0, 3.56, False),  # 0.11 of the first loss is no cure
        (4.0, 3.40, True),
        (3.7, 3.45, False),  # 0.55 nats are less than twice 0.3
        (3.7, 3.35, False),  # more than twice, and less than a tenth of the first loss more
        (3.7, 3.25, True),
        (5.0, 3.40, True),
    ],
)
def test_a_larger_rate_helps_where_it_does_far_better(own, more, helps, monkeypatch):
    monkeypatch.setattr(explaining, "row_entropy", lambda bench: 3.9)
    bench = Bench(Subject(model=Plain, vocab_size=V, train_batches=batches), 0)
    bench.taken |= sweep(own=own, more=more)
    rates = explaining.judge_rates(bench, Gauges(explaining.RATE_LIMITS))
    assert (rates.raise_helps, rates.lower_helps, rates.best) == (helps, False, 10.0)


def test_a_smaller_rate_helps_where_it_finds_far_more_tokens():
    bench = Bench(Subject(model=Plain, vocab_size=V, train_batches=batches), 0)
    bench.taken |= {rate_sweep: RateSweep({1.0: (3.5, 0.1), 0.1: (3.4, 0.6)}, 30, 4.0)}
    assert explaining.judge_rates(bench, Gauges(explaining.RATE_LIMITS)).lower_helps


@pytest.mark.parametrize(("warmup", "status"), [(400, "passed"), (600, "failed")])
def test_a_warmup_is_to_end_within_half_of_the_run(warmup, status):
    curve = RateCurve(True, (0, warmup, 1000), (0.0, 1.0, 1.0))
    taken = {schedule: curve, plan: Plan(1000, True, warmup), memorising: SimpleNamespace(learned=True)}
    verdict = judged("warmup", taken)
    assert verdict.status == status
    assert all("about 50 steps" in draft.fix for draft in verdict.drafts)


def test_a_schedule_that_counts_two_calls_an_update_is_told_as_that():
    curve = RateCurve(True, tuple(range(61)), tuple(max(0.0, 1 - step / 20) for step in range(61)))
    taken = {
        schedule: curve,
        plan: Plan(10, True, 0),
        watched_steps: WatchedSteps(calls=8, updates=4),
    }
    (draft,) = judged("the schedule lasts", taken).drafts
    assert "2 times the 10 of the run" in draft.message and "1/2 of it" in draft.message


@pytest.mark.parametrize(
    ("end", "severity", "status"),
    [(3, "error", "failed"), (7, "warning", "passed"), (EPOCH, None, "passed")],
)
def test_a_schedule_that_ends_in_its_first_epoch(end, severity, status):
    curve = RateCurve(True, tuple(range(40)), tuple(1.0 if step < end else 0.0 for step in range(40)))
    taken = {schedule: curve, watched_steps: WatchedSteps(calls=4, updates=4)}
    verdict = judged("the schedule lasts", taken)
    assert verdict.status == status
    assert [draft.severity for draft in verdict.drafts] == ([severity] if severity else [])


@pytest.mark.parametrize(("rows", "single"), [(1, True), (4, False)])
def test_texts_that_reach_no_batch(rows, single):
    seen = Coverage(first=0.05, both=0.1, texts=0.9, stretches=100, rows=rows)
    (draft,) = judged("the texts reach a batch", {coverage: seen}).drafts
    assert draft.severity == "error" if single else "warning"
    assert ("hold one row each" in draft.message) == single
    assert "5.0% of the training texts, two epochs 10.0%" in draft.message


@pytest.mark.parametrize(
    ("ratios", "told"), [((2.97, 3.03), True), ((2.0, 4.0), False), ((1.2, 1.2), False), ((1.4, 1.4), True)]
)
def test_gradients_of_another_length(ratios, told):
    steps = tuple(Arrival(2.0, 2.0, 1.0, 1.0, ratio, ratio, 1, 1.0) for ratio in ratios)
    taken = {arriving: Arriving(steps, True), loss_factors: (3.0, 3.0)}
    verdict = judged("the loss's gradient reaches the optimiser", taken)
    assert [draft.code for draft in verdict.drafts] == (["gradient-mismatch"] if told else [])
    assert verdict.status == ("failed" if told else "passed")


def test_gradients_as_long_as_the_calls_that_are_collected_were_added():
    steps = (Arrival(2.0, 2.0, 1.0, 1.0, 4.0, 4.0, 4, 1.0),) * 2
    taken = {arriving: Arriving(steps, True), loss_factors: (1.0, 1.0)}
    (draft,) = judged("the loss's gradient reaches the optimiser", taken).drafts
    assert "gradients of the 4 calls that it collects are added" in draft.message


@pytest.mark.parametrize(("alike", "told"), [(1, True), (3, False)])
def test_short_texts_are_missed_where_they_and_nearly_they_alone_are_missing(alike, told):
    """Of each pair, one there and one missing, the missing is shorter; as long counts half."""
    sizes = np.array([10] * (alike + 20) + [20] * (60 - alike))
    there = np.array([True] * alike + [False] * 20 + [True] * (60 - alike))
    found = Searched(there, there, np.arange(80), sizes)
    verdict = judged("short texts reach a batch", {searched: found})
    assert [draft.code for draft in verdict.drafts] == (["texts-never-seen"] if told else [])


@pytest.mark.parametrize(("end", "status"), [(math.inf, "failed"), (3.0, "passed")])
def test_a_loss_that_is_no_number_after_the_first_updates_has_grown(end, status):
    short = SimpleNamespace(steps=60, loss=2.0)
    taken = {
        beginnings: (Beginning(2.5, end),) * 2,
        short_training: short,
        unramped: SimpleNamespace(end=end),
    }
    verdict = judged("survives its first updates", taken | {uncorrected_betas: None})
    assert verdict.status == status


@pytest.mark.parametrize(
    ("change", "full_precision", "failed"),
    [(5e-4, True, False), (0.01, True, True), (0.01, False, False), (0.5, False, True)],
)
def test_answers_that_vary_are_judged_by_the_precision(change, full_precision, failed):
    once, again = Change(0.0, 0.0), Change(change, change)
    verdict = judged("says the same each time", {repeats: Repeats(once, again, full_precision)})
    assert verdict.status == ("failed" if failed else "passed")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"beta1": 0.99, "beta2": 0.9999}, None),
        ({"beta1": 0.999, "beta2": 0.9999}, "beta1 is 0.999"),
        ({"beta1": 0.999, "beta2": 0.9}, "in the wrong order"),
        ({"momentum": 0.9975}, None),
        ({"momentum": 0.999}, "momentum is 0.999"),
        ({"eps": 0.29}, None),
        ({"eps": 0.31}, "epsilon, 0.31, is 31 times"),
        ({"weight_decay": -0.1}, "weights grow"),
    ],
)
def test_constants_outside_of_where_optimisers_work(fields, told):
    none = dict.fromkeys(("beta1", "beta2", "eps", "momentum", "weight_decay"))
    given = {constants: (Constants("Some", **(none | fields)),), gradient_entry: 0.01}
    verdict = judged("the optimiser's constants", given)
    assert [draft.code for draft in verdict.drafts] == (["extreme-constants"] if told else [])
    assert (told or "") in "".join(draft.message for draft in verdict.drafts)
