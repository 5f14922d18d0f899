"""How many updates a run has, and whether its warmup and its schedule go with them."""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import pytest
from plain import B, given, in_batches, rows
from tiny import adamw, ask, batches, judged, subject, told, warm

from mlxstories.errors import StoriesError
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.bench import schedule
from mlxstories.ladder.bench.step.optimizers import RateCurve
from mlxstories.ladder.bench.step.plan import Plan, first_negative, part_rates, plan
from mlxstories.ladder.bench.step.steps import WatchedSteps, watched_steps
from mlxstories.ladder.bench.training.memorising import memorising
from mlxstories.ladder.registry import CHECKS


@pytest.mark.parametrize("updates", [0, -1, 2.5, True, "many"])
def test_updates_that_are_no_number_are_refused_in_one_line(updates):
    with pytest.raises(
        StoriesError, match=r"^Subject.updates must be an integer of at least 1, got"
    ) as raised:
        subject(updates=updates)
    assert "\n" not in str(raised.value)


def test_a_run_is_as_long_as_it_says_or_as_its_schedule_or_usual():
    line = adamw(optim.linear_schedule(1e-2, 0.0, 200))
    assert plan(Bench(subject(updates=77, optimizer=line))).updates == 77
    assert plan(Bench(subject(optimizer=line))).updates == 198
    assert plan(Bench(subject())).updates == 1000
    assert plan(Bench(subject(train_batches=lambda seed: batches(seed, 90)))).updates == 20 * 90


@pytest.mark.parametrize(
    ("schedule", "updates", "wanted"),
    [
        (optim.linear_schedule(1e-2, 0.0, 400), 1000, [("schedule-out-of-step", "error")]),
        (optim.linear_schedule(1e-2, 0.0, 800), 1000, [("schedule-out-of-step", "warning")]),
        (optim.cosine_decay(1e-2, 1000), 1000, []),
        (optim.cosine_decay(1e-2, 1000, 1e-3), 1000, []),
        (optim.cosine_decay(1e-2, 4000), 1000, [("schedule-out-of-step", "warning")]),
        (optim.exponential_decay(1e-2, 0.998), 1000, []),
        (warm(50), 1000, []),
    ],
)
def test_a_schedule_is_held_against_the_updates_that_are_stated(schedule, updates, wanted):
    found = ask("the schedule lasts", optimizer=adamw(schedule), updates=updates)
    assert told(found)[1] == wanted
    assert (found.status == "failed") == (wanted[:1] == [("schedule-out-of-step", "error")])


def fourth_call_alone():
    calls = []

    def step(model, optimizer, batch):
        calls.append(1)
        loss, gradients = nn.value_and_grad(
            model, lambda m: nn.losses.cross_entropy(m(batch.inputs), batch.targets).mean()
        )(model)
        if len(calls) % 4 == 0:
            optimizer.update(model, gradients)
        return loss

    return step


@pytest.mark.parametrize(("lasts", "in_calls"), [(4000, True), (1000, False)])
def test_a_schedule_that_counts_calls_is_told(lasts, in_calls):
    setup = subject(
        optimizer=adamw(optim.cosine_decay(1e-2, lasts)), updates=1000, train_step=fourth_call_alone()
    )
    found = ask("the schedule lasts", Bench(setup))
    assert told(found)[1] == ([("schedule-out-of-step", "warning")] if in_calls else [])
    assert not in_calls or "every 4th call" in found.drafts[0].message


@pytest.mark.parametrize(("updates", "wanted"), [(150, ["warmup-too-long"]), (1000, [])])
def test_warmup_is_judged_over_the_updates_that_are_stated(updates, wanted):
    found = ask("warmup", optimizer=adamw(warm(100)), updates=updates)
    assert [code for code, _ in told(found)[1]] == wanted


def line(total):
    return lambda: optim.AdamW(lambda step: 1e-2 * (1 - step / total), bias_correction=True)


@pytest.mark.parametrize(
    ("total", "updates", "first"),
    [(100, 150, 101), (100, 101, None), (1000, 100_000, 1001), (5, None, 6), (8, None, None)],
)
def test_the_first_negative_rate_is_found(total, updates, first):
    bench = Bench(subject(optimizer=line(total), updates=updates))
    assert first_negative(bench, part_rates(bench)[0]) == first
    wanted = [("schedule-out-of-step", "error")] if first else []
    assert judged("the rate is never negative", bench) == wanted


EPOCH = 10


@pytest.mark.parametrize(("warmup", "status"), [(400, "passed"), (600, "failed")])
def test_a_warmup_is_to_end_within_half_of_the_run(warmup, status):
    curve = RateCurve(True, (0, warmup, 1000), (0.0, 1.0, 1.0))
    taken = {schedule: curve, plan: Plan(1000, True, warmup), memorising: SimpleNamespace(learned=True)}
    verdict = given("warmup", taken)
    assert verdict.status == status
    assert all("about 50 steps" in draft.fix for draft in verdict.drafts)


def test_a_schedule_that_counts_two_calls_an_update_is_told_as_that():
    curve = RateCurve(True, tuple(range(61)), tuple(max(0.0, 1 - step / 20) for step in range(61)))
    taken = {
        schedule: curve,
        plan: Plan(10, True, 0),
        watched_steps: WatchedSteps(calls=8, updates=4),
    }
    (draft,) = given("the schedule lasts", taken).drafts
    assert "2 times the 10 of the run" in draft.message and "1/2 of it" in draft.message


@pytest.mark.parametrize(
    ("end", "severity", "status"),
    [(3, "error", "failed"), (7, "warning", "passed"), (EPOCH, None, "passed")],
)
def test_a_schedule_that_ends_in_its_first_epoch(end, severity, status):
    curve = RateCurve(True, tuple(range(40)), tuple(1.0 if step < end else 0.0 for step in range(40)))
    taken = {schedule: curve, watched_steps: WatchedSteps(calls=4, updates=4)}
    verdict = given("the schedule lasts", taken, train_batches=in_batches(rows(EPOCH * B)))
    assert verdict.status == status
    assert [draft.severity for draft in verdict.drafts] == ([severity] if severity else [])


def in_two(first, second):
    """Of the head, and of all the rest."""
    made = [optim.AdamW(rate, bias_correction=True) for rate in (first, second)]
    return lambda: optim.MultiOptimizer(made, [lambda name, _: "head" in name])


LEAPS = optim.join_schedules([optim.linear_schedule(0, 1e-4, 50), lambda _: mx.array(1e-2)], [50])
SPENT, WHOLE = optim.linear_schedule(1e-2, 0.0, 400), optim.linear_schedule(1e-2, 0.0, 1000)


@pytest.mark.parametrize(
    ("first", "second", "of"),
    [
        (WHOLE, SPENT, " of part 2 (AdamW)"),
        (SPENT, WHOLE, " of part 1 (AdamW)"),
        (SPENT, optim.linear_schedule(2e-2, 0.0, 400), ""),
        (1e-2, SPENT, " of part 2 (AdamW)"),
    ],
)
def test_the_schedule_of_each_part_of_an_optimizer_is_looked_at(first, second, of):
    verdict = ask("the schedule lasts", optimizer=in_two(first, second), updates=1000)
    assert told(verdict)[1] == [("schedule-out-of-step", "error")]
    assert verdict.drafts[0].message.startswith(f"the learning rate{of} is 1 % of its peak")


@pytest.mark.parametrize(
    ("name", "second"),
    [
        ("the rate is never negative", lambda step: 1e-2 * (1 - step / 20)),
        (
            "the schedule's pieces meet",
            optim.join_schedules([optim.linear_schedule(0, 1e-4, 50), lambda _: mx.array(1e-2)], [50]),
        ),
        ("warmup", optim.linear_schedule(0, 1e-2, 900)),
    ],
)
def test_what_is_wrong_with_a_second_part_is_told_as_its_own(name, second):
    bench = Bench(subject(optimizer=in_two(1e-2, second), updates=1000))
    bench.taken[memorising] = SimpleNamespace(learned=True)
    check = CHECKS[name]
    (draft,) = check.ask(bench, check.gauges()).drafts
    assert "the learning rate of part 2 (AdamW)" in draft.message


def test_an_adam_that_warms_up_is_judged_by_its_own_rate():
    slow = optim.join_schedules(
        [optim.linear_schedule(1e-6, 1e-3, 2000), optim.cosine_decay(1e-3, 8000)], [2000]
    )

    def made(first, second):
        both = [optim.SGD(first), optim.Adam(second, betas=[0.9, 0.999])]
        return lambda: optim.MultiOptimizer(both, [lambda name, _: "head" in name])

    assert ask("bias correction", optimizer=made(slow, 1e-3), updates=10_000).drafts
    assert not ask("bias correction", optimizer=made(1e-3, slow), updates=10_000).drafts
