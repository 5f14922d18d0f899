"""Schedules at every step against their formulas in plain Python, and against PyTorch's."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxstories.errors import StoriesError
from mlxstories.optim import SCHEDULES, ScheduleConfig, build_schedule
from mlxstories.optim.schedules import (
    constant,
    cosine,
    join,
    linear,
    linear_warmup,
    noam,
    noam_peak,
    warmup_cosine,
    warmup_linear,
    wsd,
)

PEAK, WARMUP, TOTAL, COOLDOWN, FINAL = 3e-3, 7, 50, 12, 1e-4


def warm(step):
    return PEAK * min((step + 1) / WARMUP, 1)


def share_of_decay(step, start):
    return min(max(step - start, 0) / (TOTAL - start), 1)


FORMULAS = {
    "constant": (constant(PEAK), lambda s: PEAK),
    "linear_warmup": (linear_warmup(PEAK, WARMUP), warm),
    "no warmup": (linear_warmup(PEAK, 0), lambda s: PEAK),
    "warmup_linear": (
        warmup_linear(PEAK, WARMUP, TOTAL, FINAL),
        lambda s: warm(s) if s < WARMUP else PEAK - (PEAK - FINAL) * share_of_decay(s, WARMUP),
    ),
    "warmup_cosine": (
        warmup_cosine(PEAK, WARMUP, TOTAL, FINAL),
        lambda s: (
            warm(s)
            if s < WARMUP
            else FINAL + (PEAK - FINAL) * (1 + math.cos(math.pi * share_of_decay(s, WARMUP))) / 2
        ),
    ),
    "cosine alone": (
        warmup_cosine(PEAK, 0, TOTAL),
        lambda s: PEAK * (1 + math.cos(math.pi * share_of_decay(s, 0))) / 2,
    ),
    "noam": (noam(PEAK, WARMUP), lambda s: PEAK * min((s + 1) / WARMUP, ((s + 1) / WARMUP) ** -0.5)),
    "noam of the paper": (
        noam(noam_peak(512, WARMUP), WARMUP),
        lambda s: 512**-0.5 * min((s + 1) ** -0.5, (s + 1) * WARMUP**-1.5),
    ),
    "wsd": (
        wsd(PEAK, WARMUP, TOTAL, COOLDOWN, FINAL),
        lambda s: (
            warm(s)
            if s < TOTAL - COOLDOWN
            else FINAL + (PEAK - FINAL) * (1 - math.sqrt(share_of_decay(s, TOTAL - COOLDOWN)))
        ),
    ),
    "wsd, linear": (
        wsd(PEAK, WARMUP, TOTAL, COOLDOWN, FINAL, "linear"),
        lambda s: (
            warm(s) if s < TOTAL - COOLDOWN else PEAK - (PEAK - FINAL) * share_of_decay(s, TOTAL - COOLDOWN)
        ),
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formula_at_every_step(name):
    schedule, formula = FORMULAS[name]
    steps = range(TOTAL + 20)  # the last value holds
    expected = [formula(step) for step in steps]
    # What MLX's optimiser passes: a uint64 scalar, one update at a time; and all at once, compiled.
    got = [schedule(mx.array(step, mx.uint64)) for step in steps]
    assert all(value.shape == () and value.dtype == mx.float32 for value in got)
    np.testing.assert_allclose([value.item() for value in got], expected, rtol=1e-6, atol=1e-15)
    np.testing.assert_allclose(mx.compile(schedule)(mx.arange(TOTAL + 20)), expected, rtol=1e-6, atol=1e-15)


def rates_of_torch(make):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    schedule = make(torch.optim.lr_scheduler, optimizer)
    rates = []
    for _ in range(TOTAL):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def torch_warmup(library, optimizer):
    return library.LinearLR(optimizer, start_factor=1 / WARMUP, total_iters=WARMUP - 1)


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize(
    ("name", "decay"),
    [
        ("cosine", lambda lib, opt: lib.CosineAnnealingLR(opt, TOTAL - WARMUP, eta_min=FINAL)),
        ("linear", lambda lib, opt: lib.LinearLR(opt, 1.0, FINAL / PEAK, TOTAL - WARMUP)),
    ],
)
def test_parity_with_torch(name, decay):
    expected = rates_of_torch(
        lambda lib, opt: lib.SequentialLR(opt, [torch_warmup(lib, opt), decay(lib, opt)], [WARMUP])
    )
    schedule = {"cosine": warmup_cosine, "linear": warmup_linear}[name](PEAK, WARMUP, TOTAL, FINAL)
    np.testing.assert_allclose(schedule(mx.arange(TOTAL)), expected, rtol=2e-6)


def test_join_counts_from_each_boundary():
    schedule = join([constant(1.0), linear(0.5, 0.0, 4), cosine(2.0, 1.0, 2)], [2, 5])
    expected = [1, 1, 0.5, 0.375, 0.25, 2, 1.5, 1, 1]
    np.testing.assert_allclose(schedule(mx.arange(9)), expected, rtol=1e-6)


@settings(max_examples=60)
@given(
    st.sampled_from(SCHEDULES),
    st.integers(1, 200),
    st.floats(0, 0.99, allow_subnormal=False),
    st.floats(0, 1, allow_subnormal=False),
)
def test_every_update_of_every_run_has_a_rate(name, total, warmup, final):
    config = ScheduleConfig(name, warmup=warmup, final=final, cooldown=0.01)
    rates = np.array(build_schedule(config, PEAK, total)(mx.arange(total)))
    assert (rates > 0).all() and (rates <= PEAK * (1 + 1e-6)).all()
    assert rates.max() == pytest.approx(PEAK)


def test_warmup_as_share_or_updates():
    assert ScheduleConfig(warmup=0.1).warmup_steps(50) == 5
    assert ScheduleConfig(warmup=0.1).warmup_steps(5) == 0
    assert ScheduleConfig(warmup=1).warmup_steps(50) == 1
    assert ScheduleConfig(warmup=200).warmup_steps(50) == 200
    rate = build_schedule(ScheduleConfig("linear_warmup", warmup=200), 1.0, 50)(mx.array(49))
    assert rate.item() == pytest.approx(0.25)


def test_noam_multiplies_the_papers_form_when_the_width_is_given():
    classic = build_schedule(ScheduleConfig("noam", warmup=4000, dim=512), 1.0, 100_000)
    assert classic(mx.array(3999)).item() == pytest.approx(512**-0.5 * 4000**-0.5, rel=1e-6)
    scaled = build_schedule(ScheduleConfig("noam", warmup=4000), 3e-4, 100_000)
    assert scaled(mx.array(3999)).item() == pytest.approx(3e-4, rel=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ScheduleConfig("cosine"), "schedule must be one of constant, linear_warmup"),
        (lambda: ScheduleConfig(warmup=-1), "warmup must be a number at least 0; got -1"),
        (lambda: ScheduleConfig(warmup=2.5), "share below 1 or a whole number of updates; got 2.5"),
        (lambda: ScheduleConfig(final=1.5), "final"),
        (lambda: ScheduleConfig(cooldown=0), "cooldown"),
        (lambda: ScheduleConfig(cooldown_shape="log"), "cooldown_shape"),
        (lambda: build_schedule(ScheduleConfig(), 1e-3, 0), "total_steps"),
        (lambda: build_schedule(ScheduleConfig("warmup_cosine", warmup=50), 1e-3, 50), "shorten"),
        (lambda: build_schedule(ScheduleConfig("wsd", warmup=0.9, cooldown=0.9), 1e-3, 50), "shorten"),
        (lambda: constant(-1.0), "learning rate"),
        (lambda: linear(1.0, 0.0, 0), "steps"),
        (lambda: noam_peak(0, 1), "dim"),
        (lambda: noam_peak(1.5, 1), "dim"),
        (lambda: wsd(1.0, 1, 10, 0), "cooldown"),
        (lambda: join([constant(1.0)], [3]), "0 boundaries between them, not 1"),
        (lambda: join([constant(1.0)] * 3, [5, 2]), "must rise"),
    ],
)
def test_bad_schedules_are_refused(make, message):
    with pytest.raises(StoriesError, match=message):
        make()


def test_the_least_that_is_taken():
    assert noam_peak(1, 1) == 1.0
    assert float(wsd(1.0, 1, 10, 1)(mx.array(10))) == 0.0
