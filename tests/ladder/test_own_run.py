"""The run that the subject has: its updates, its warmup, its first steps; ids, rows and figures that lose something."""

from __future__ import annotations

import math
from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from tiny import B, T, Tiny, V, batches, subject

from mlxstories.errors import StoriesError
from mlxstories.ladder import Subject
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.loss.demands import Asked
from mlxstories.ladder.bench.material import train_epoch
from mlxstories.ladder.bench.step.adam import overstep, oversteps
from mlxstories.ladder.bench.step.optimizers import read_schedule
from mlxstories.ladder.bench.step.plan import plan
from mlxstories.ladder.bench.training.trial import train
from mlxstories.ladder.checks.init import demands
from mlxstories.ladder.registry import CHECKS


def verdict(name: str, setup: Subject):
    check = CHECKS[name]
    return check.ask(Bench(setup), check.gauges())


def codes(found) -> list[tuple[str, str]]:
    return [(draft.code, draft.severity) for draft in found.drafts]


def on(schedule, **options):
    return lambda: optim.AdamW(schedule, **{"bias_correction": True, **options})


def warm(updates: int, rate: float = 1e-2):
    return optim.join_schedules(
        [optim.linear_schedule(0.0, rate, updates), lambda _: mx.array(rate)], [updates]
    )


# What is stated


@pytest.mark.parametrize("updates", [0, -1, 2.5, True, "many"])
def test_updates_that_are_no_number_are_refused_in_one_line(updates):
    with pytest.raises(
        StoriesError, match=r"^Subject.updates must be an integer of at least 1, got"
    ) as raised:
        subject(updates=updates)
    assert "\n" not in str(raised.value)


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


def test_a_run_is_as_long_as_it_says_or_as_its_schedule_or_usual():
    line = on(optim.linear_schedule(1e-2, 0.0, 200))
    assert plan(Bench(subject(updates=77, optimizer=line))).updates == 77
    assert plan(Bench(subject(optimizer=line))).updates == 198
    assert plan(Bench(subject())).updates == 1000
    assert plan(Bench(subject(train_batches=lambda seed: batches(seed, 90)))).updates == 20 * 90


# Warmup and bias correction


def test_the_updates_of_an_uncorrected_adam_are_told_over_its_own_warmup():
    bench = Bench(subject(optimizer=on(warm(500), betas=[0.9, 0.999], bias_correction=False)))
    found, n = oversteps(bench), np.arange(1, 1001)
    rate = np.minimum((n - 1) / 500, 1.0)
    by_hand = rate * (1 - 0.9**n) / np.sqrt(1 - 0.999**n)
    np.testing.assert_allclose(found, by_hand, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize(("warmup", "told"), [(0, "error"), (2000, "warning")])
def test_a_warmup_may_do_for_the_bias_correction(warmup, told):
    schedule = warm(warmup) if warmup else 1e-2
    setup = subject(updates=10_000, optimizer=on(schedule, betas=[0.9, 0.9999], bias_correction=False))
    assert codes(verdict("bias correction", setup)) == [("no-bias-correction", told)]


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


# Schedules


@pytest.mark.parametrize(
    ("schedule", "updates", "told"),
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
def test_a_schedule_is_held_against_the_updates_that_are_stated(schedule, updates, told):
    found = verdict("the schedule lasts", subject(optimizer=on(schedule), updates=updates))
    assert codes(found) == told
    assert (found.status == "failed") == (told[:1] == [("schedule-out-of-step", "error")])


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
        optimizer=on(optim.cosine_decay(1e-2, lasts)), updates=1000, train_step=fourth_call_alone()
    )
    found = verdict("the schedule lasts", setup)
    assert codes(found) == ([("schedule-out-of-step", "warning")] if in_calls else [])
    assert not in_calls or "every 4th call" in found.drafts[0].message


@pytest.mark.parametrize(("updates", "told"), [(150, ["warmup-too-long"]), (1000, [])])
def test_warmup_is_judged_over_the_updates_that_are_stated(updates, told):
    found = verdict("warmup", subject(optimizer=on(warm(100)), updates=updates))
    assert [code for code, _ in codes(found)] == told


# The first updates


@pytest.mark.parametrize(
    ("optimizer", "told"),
    [
        (on(1e-2), []),
        (lambda: optim.SGD(40.0, momentum=0.95), ["learning-rate-too-large"]),
    ],
)
def test_an_explosion_in_the_first_updates_is_told(optimizer, told):
    found = verdict("survives its first updates", subject(optimizer=optimizer))
    assert [code for code, _ in codes(found)] == told


# Ids, rows and figures that lose something


def stream(size: int, top: int, count: int = 60):
    rng = np.random.default_rng(1)
    table = rng.integers(0, top, (count, B, T + 1))
    table[0, 0, 0] = top - 1
    return lambda seed: [(mx.array(rows[:, :-1]), mx.array(rows[:, 1:])) for rows in table]


@pytest.mark.parametrize(
    ("top", "size", "told"),
    [(256, 1000, ["tokenizer-mismatch"]), (200, 1000, []), (256, 256, []), (257, 1000, [])],
)
def test_ids_that_end_where_eight_bits_do(top, size, told):
    setup = subject(vocab_size=size, train_batches=stream(size, top))
    assert codes(verdict("ids keep all their bits", setup)) == [(code, "warning") for code in told]


@pytest.mark.parametrize(("highest", "told"), [(900, ["tokenizer-mismatch"]), (100, [])])
def test_a_tokenizer_shows_that_ids_have_lost_bits(highest, told):
    tokenizer = SimpleNamespace(encode=lambda text: list(range(highest)), decode=lambda ids: " ")
    setup = subject(
        vocab_size=1000, train_batches=stream(1000, 230), tokenizer=tokenizer, train_texts=["a story"]
    )
    assert codes(verdict("ids keep all their bits", setup)) == [(code, "error") for code in told]


def squeezed(function):
    def loss(model, batch):
        return nn.losses.cross_entropy(model(batch.inputs), function(batch.targets)).mean()

    return loss


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda targets: mx.minimum(targets, 6), "for every target above it"),
        (lambda targets: targets, ""),
        (lambda targets: mx.minimum(targets, V - 1), ""),
        (lambda targets: mx.minimum(targets, 11), ""),  # one id alone could be meant
    ],
)
def test_targets_that_the_loss_clips(function, told):
    found = verdict("the loss knows every id", subject(loss=squeezed(function)))
    assert [draft.code for draft in found.drafts] == (["wrong-loss"] if told else [])
    assert all(told in draft.message for draft in found.drafts)


@pytest.mark.parametrize(("highest", "told"), [(6, ["targets-mismatched"]), (V - 1, [])])
def test_targets_that_the_batches_clip(highest, told):
    def clipped(seed):
        return [batch._replace(targets=mx.minimum(batch.targets, highest)) for batch in batches(seed)]

    found = verdict("targets of train_batches follow the inputs", subject(train_batches=clipped))
    assert [draft.code for draft in found.drafts] == told
    assert all(f"above id {highest}" in draft.message for draft in found.drafts)


def test_ids_that_were_not_tried_are_not_called_lost(monkeypatch):
    tried = np.array([3, 1, 5, 2])
    for pushed, told in ((tried, []), (np.minimum(tried, 3), ["wrong-loss"])):
        found = Asked(tried, pushed, real=np.arange(V))
        monkeypatch.setattr(demands, "asked", lambda bench, found=found: found)
        assert [code for code, _ in codes(verdict("the loss knows every id", subject()))] == told


def some_places(places: slice):
    def loss(model, batch):
        return nn.losses.cross_entropy(model(batch.inputs)[:, places], batch.targets[:, places]).mean()

    return loss


@pytest.mark.parametrize(("places", "told"), [(slice(5), True), (slice(12), False), (slice(10, None), False)])
def test_a_loss_of_the_first_places_alone(places, told):
    found = verdict("every place counts in the loss", subject(loss=some_places(places)))
    assert (found.status == "failed") is told
    assert not told or "the first 5 places" in found.drafts[0].message


def greedy(masked: bool):
    """Decoding of one prompt, or of several at once, whose padding is left out or taken for tokens."""

    def generate(model, prompts, n):
        model.eval()
        if not isinstance(prompts[0], list):
            return generate(model, [prompts], n)[0]
        rows, width = [list(prompt) for prompt in prompts], max(map(len, prompts))
        rows = rows if masked else [[0] * (width - len(row)) + row for row in rows]
        told = [[] for _ in rows]
        for _ in range(n):
            for row, new in zip(rows, told, strict=True):
                new.append(int(mx.argmax(model(mx.array([row]))[0, -1]).item()))
                row.append(new[-1])
        return told

    return generate


@pytest.mark.parametrize(
    ("generate", "told"),
    [
        (greedy(masked=True), "passed"),
        (greedy(masked=False), "failed"),
        (lambda model, prompt, n: greedy(True)(model, [int(i) for i in prompt], n), "skipped"),
    ],
)
def test_prompts_of_unequal_length(generate, told):
    assert (
        verdict("prompts of unequal length", subject(generate=generate, model=lambda: Tiny())).status == told
    )


LETTERS = SimpleNamespace(encode=lambda text: [], decode=lambda ids: "ab" * len(ids))


@pytest.mark.parametrize(
    ("name", "per", "told"),
    [
        ("bits_per_byte", math.log(2) * 2, ""),
        ("bpb", math.log(2), "bits per token"),
        ("val_bpc", 2, "nats per character"),
        ("bits", 1, ""),
    ],
)
def test_bits_per_byte_go_with_the_loss(name, per, told):
    def evaluate(model, given):
        model.eval()
        nats = [nn.losses.cross_entropy(model(b.inputs), b.targets).mean().item() for b in given]
        loss = sum(nats) / len(nats)
        return {"loss": loss, name: loss / per}

    setup = subject(evaluate=evaluate, val_batches=lambda: batches(7), tokenizer=LETTERS)
    found = verdict("bits per byte go with the loss", setup)
    assert [draft.code for draft in found.drafts] == (["metric-mismatch"] if told else [])
    severity = "error" if told.startswith("nats") else "warning"  # bits of another unit may be meant
    assert all(told in draft.message and draft.severity == severity for draft in found.drafts)
