"""What is read from curves and recipes alone."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from mlxstories.data.packing import Documents
from mlxstories.ladder.registry import CHECKS
from mlxstories.optim import build_schedule
from mlxstories.repair.signs import Signs, rates, word_entropy
from mlxstories.repair.suspects import suspects
from mlxstories.training.phases import PHASES, override

GUESS, WORDS = 7.0, 5.5
PARAMETERS = 50_000


def read(losses, every=10, total=1000, rate=None, words=WORDS):
    """The first sign in a curve of losses, and the step at which it was seen."""
    signs = Signs(np.ones(total) if rate is None else rate, GUESS, words)
    for index, loss in enumerate(losses, 1):
        sign = signs({"split": "train", "step": index * every, "loss": float(loss)})
        if sign:
            return sign.kind, index * every
    return None


def test_the_entropy_of_the_words_counts_the_ends_of_stories():
    documents = Documents.of([np.array([3, 4, 4], np.uint16), np.array([4, 5], np.uint16)])
    assert word_entropy(documents) == pytest.approx(entropy([1, 3, 1, 2]))


@given(st.floats(15, 60), st.floats(1.0, 4.5), st.integers(0, 2**31))
def test_a_loss_that_falls_is_no_sign(half_life, end, seed):
    steps = np.arange(10, 1001, 10)
    noise = 0.03 * np.random.default_rng(seed).standard_normal(len(steps))
    assert read(end + (GUESS - end) * 0.5 ** (steps / half_life) + noise) is None


@given(st.floats(6.9, 7.1), st.integers(0, 2**31))
def test_a_loss_that_stays_is_stuck_after_twenty_updates(level, seed):
    noise = 0.02 * np.random.default_rng(seed).standard_normal(100)
    assert read(level + noise) == ("stuck", 20)


def test_a_warmup_gives_the_loss_time():
    rate = np.minimum(np.arange(1, 1001) / 500, 1)
    kind, step = read([7.0] * 100, rate=rate)
    assert kind == "stuck" and rate[:step].sum() == pytest.approx(20, abs=3)


def test_word_frequencies_alone_are_stuck_after_a_tenth_of_the_run():
    falling = 5.6 + 1.4 * 0.5 ** (np.arange(1, 100) / 2)
    assert read(falling) == ("stuck", 100)
    assert read(falling - 0.3) == ("stuck", 100)  # a little below them, and standing still
    assert read(falling - 1.0) is None


def test_the_second_half_of_a_run_is_too_late_for_a_new_start():
    assert read([5.6] * 10, every=50) == ("stuck", 100)
    assert read([5.6] * 3, every=50, total=180) is None


def test_without_word_frequencies_only_a_loss_that_does_not_move_is_stuck():
    assert read(5.6 + 1.4 * 0.5 ** (np.arange(1, 100) / 2), words=None) is None
    assert read([7.0] * 10, words=None) == ("stuck", 20)


@pytest.mark.parametrize("worse", [8.5, 1e6])
def test_a_loss_worse_than_at_the_start_has_exploded(worse):
    assert read([6.5, 6.0, worse]) == ("exploded", 30)


def test_a_relapse_is_a_sign_when_it_lasts_for_two_lines():
    assert read([6.0, 4.0, 3.0, 5.0, 3.0]) is None
    assert read([6.0, 4.0, 3.0, 5.0, 5.0]) == ("exploded", 50)


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("name", ["adamw", "adam", "nadamw", "lion", "sgd", "muon"])
@pytest.mark.parametrize("total", [50, 100_000])
def test_recipes_as_they_are_used_hold_no_suspect(number, name, total):
    phase = override(PHASES[number], {"optimizer.name": name})
    for warmup in (0.0, 0.02, 0.3):
        phase = override(phase, {"schedule.warmup": warmup})
        assert suspects(phase, total, gradient_norm=3.0, parameters=PARAMETERS) == []


@pytest.mark.parametrize(
    "changes, code",
    [
        ({"optimizer.weight_decay": 300.0}, "weight-decay-too-large"),
        ({"schedule.name": "linear_warmup", "schedule.warmup": 10_000}, "warmup-too-long"),
        ({"optimizer.bias_correction": False, "optimizer.betas": (0.9, 0.99999)}, "no-bias-correction"),
        ({"optimizer.betas": (0.999, 0.9999)}, "extreme-constants"),
        ({"optimizer.eps": 1.0}, "extreme-constants"),
        ({"label_smoothing": 0.95}, "extreme-constants"),
        ({"clip_norm": 1e-6}, "clipping-too-tight"),
    ],
)
def test_a_suspect_is_named_and_its_sane_value_is_no_suspect(changes, code):
    phase = override(PHASES[1], changes)
    (found,) = suspects(phase, 1000, gradient_norm=3.0, parameters=PARAMETERS)
    assert found.code == code
    assert suspects(override(phase, found.changes), 1000, gradient_norm=3.0, parameters=PARAMETERS) == []


def adam(**constants):
    return {f"optimizer.{name}": value for name, value in constants.items()}


@pytest.mark.parametrize(
    "check, name, changes",
    [
        ("weight decay", "forgets", lambda share: adam(weight_decay=share / 1e-3)),
        (
            "weight decay",
            "forgets",
            lambda share: adam(name="sgd", momentum=0.9, weight_decay=share / 1e-3 * (1 - 0.9)),
        ),
        ("clipping", "share", lambda share: {"clip_norm": 3.0 * share}),
        ("the optimiser's constants", "momentum", lambda kept: adam(name="muon", momentum=kept)),
        ("the optimiser's constants", "momentum", lambda kept: adam(betas=(kept, 0.9999))),
        ("the optimiser's constants", "memory", lambda ratio: adam(betas=(0.9, (0.81 / ratio) ** 2))),
    ],
)
def test_a_suspect_begins_at_the_ladder_s_own_limit(check, name, changes):
    limit = CHECKS[check].limits[name].value
    low, high = sorted([0.9999 * limit, 1.0001 * limit], reverse=check == "clipping")
    for value, suspected in ((low, False), (high, True)):
        found = suspects(override(PHASES[1], changes(value)), 1000, 3.0, PARAMETERS)
        assert bool(found) is suspected
        assert {suspect.code for suspect in found} <= set(CHECKS[check].causes)


def test_an_uncorrected_adam_is_held_to_the_ladder_s_limit_with_its_own_warmup():
    """The largest update by the recurrences of the moments under a gradient of 1."""
    limit = CHECKS["bias correction"].limits["overstep"].value

    def largest(beta2: float, warmup: int) -> float:
        m = v = most = 0.0
        for update in range(1, 301):
            m, v = 0.9 * m + 0.1, beta2 * v + (1 - beta2)
            most = max(most, m / math.sqrt(v) * min(1, update / max(1, warmup)))
        return most

    told = set()
    for beta2 in (0.999, 0.9995, 0.9999, 0.99999):
        for warmup in (0, 30, 150):
            changes = adam(bias_correction=False, betas=(0.9, beta2)) | {"schedule.warmup": warmup}
            found = suspects(override(PHASES[1], changes), 300, 3.0, PARAMETERS)
            assert bool(found) is (largest(beta2, warmup) > limit), (beta2, warmup)
            told.add((beta2, bool(found)))
    assert {(0.9999, True), (0.9999, False)} <= told


def test_what_a_trial_tells_is_suspected_below_the_ladder_s_limit_and_what_it_cannot_above():
    entry = 3.0 / math.sqrt(PARAMETERS)
    eps = CHECKS["the optimiser's constants"].limits["eps"].value * entry
    share = CHECKS["warmup"].limits["share"].value
    for changes, suspected in (
        (adam(eps=eps / 900), True),
        (adam(eps=eps / 1100), False),
        ({"schedule.name": "linear_warmup", "schedule.warmup": 2 * share * 1000}, True),
        ({"schedule.name": "linear_warmup", "schedule.warmup": 2 * share * 1000 - 1}, False),
    ):
        assert bool(suspects(override(PHASES[1], changes), 1000, 3.0, PARAMETERS)) is suspected


def test_mlx_s_own_adam_without_bias_correction_is_no_suspect():
    assert suspects(override(PHASES[1], {"optimizer.bias_correction": False}), 1000, None, PARAMETERS) == []


def test_the_rates_of_a_run_are_those_of_its_schedule():
    schedule = build_schedule(PHASES[1].schedule, 2.0, 100)
    values = rates(schedule, 100)
    assert values[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    assert math.isclose(values[-1], 2.0 / 95, rel_tol=1e-6)
