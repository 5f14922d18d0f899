"""Verdicts of the rungs data to sweep on measurements that are given, one on each side of a limit."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlxstories.batch import Batch
from mlxstories.ladder import Subject
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.arriving import Arrival, Arriving, arriving, loss_factors
from mlxstories.ladder.bench.bench import schedule
from mlxstories.ladder.bench.consistency import Change, Repeats, repeats
from mlxstories.ladder.bench.constants import Constants, constants, gradient_entry
from mlxstories.ladder.bench.coverage import Coverage, coverage
from mlxstories.ladder.bench.optimizers import RateCurve
from mlxstories.ladder.bench.rates import RateSweep, rate_sweep
from mlxstories.ladder.bench.steps import WatchedSteps, watched_steps
from mlxstories.ladder.bench.untrained import TableReads, table_reads
from mlxstories.ladder.checks import explaining
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
