"""The minimal batch at other rates: which of them helps."""

from __future__ import annotations

from types import SimpleNamespace

import mlx.nn as nn
import mlx.optimizers as optim
import pytest
from plain import bench
from tiny import B, T, adamw, judged, nats, subject

from mlxstories.ladder import diagnose
from mlxstories.ladder.bench.training.memorising import memorising
from mlxstories.ladder.bench.training.rates import RateSweep, rate_sweep
from mlxstories.ladder.checks.sweep import rate_evidence
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import CHECKS


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
    monkeypatch.setattr(rate_evidence, "row_entropy", lambda bench: 3.9)
    on = bench()
    on.taken |= sweep(own=own, more=more)
    rates = rate_evidence.judge_rates(on, Gauges(rate_evidence.RATE_LIMITS))
    assert (rates.raise_helps, rates.lower_helps, rates.best) == (helps, False, 10.0)


def test_a_smaller_rate_helps_where_it_finds_far_more_tokens():
    on = bench()
    on.taken |= {rate_sweep: RateSweep({1.0: (3.5, 0.1), 0.1: (3.4, 0.6)}, 30, 4.0)}
    assert rate_evidence.judge_rates(on, Gauges(rate_evidence.RATE_LIMITS)).lower_helps


def test_a_rate_too_small_is_named_with_its_factor():
    small = subject(optimizer=lambda: optim.AdamW(1e-6, bias_correction=True))
    first = diagnose(small, rungs=["sweep"]).findings[0]
    assert first.code == "learning-rate-too-small" and first.evidence["learning_rate"] == pytest.approx(1e-6)


def test_the_best_rate_is_told_by_the_loss_that_it_was_chosen_by():
    on = bench(optimizer=lambda: optim.AdamW(1e-3, bias_correction=True))
    losses = {1.0: (3.5, 0.75), 3.0: (3.4, 0.61)}
    on.taken |= {rate_sweep: RateSweep(losses, 30, 4.0), memorising: SimpleNamespace(learned=True)}
    best = "best after 30 steps at 3 times 0.001: 3.40 nats, 61.0% of the tokens; at 1: 3.50 nats, 75.0%"
    assert CHECKS["learning rates"].ask(on, None).detail == best


def summed_nats(model, batch):
    return nn.losses.cross_entropy(model(batch.inputs), batch.targets, reduction="sum")


@pytest.mark.parametrize(
    ("loss", "optimizer", "found"),
    [
        (summed_nats, lambda: optim.SGD(1.0, momentum=0.9), [("wrong-normalisation", "error")]),
        (summed_nats, lambda: optim.SGD(1.0 / (B * T), momentum=0.9), []),
        (summed_nats, adamw(3.0), []),  # the mean is as much too bold
        (nats, lambda: optim.SGD(60.0, momentum=0.9), []),
    ],
)
def test_a_sum_is_the_cause_where_its_mean_learns_at_the_same_rate(loss, optimizer, found):
    assert judged("learns once a sum is divided", loss=loss, optimizer=optimizer) == found
