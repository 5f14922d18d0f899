"""Losses of two terms, one of which asks for nothing, or for the opposite."""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn
import pytest
import tiny
from tiny import nats

from mlxstories.ladder import diagnose
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.loss.demands import demands
from mlxstories.ladder.bench.loss.objective import loss_formula

mx.random.seed(3)
TEACHER = mx.random.normal((tiny.V, tiny.V)) * 2
"""Logits of the next token, by the token before."""


def divergence(model, batch, warmth=2.0):
    soft = mx.softmax(TEACHER[batch.inputs] / warmth, axis=-1)
    own = nn.log_softmax(model(batch.inputs) / warmth, axis=-1)
    return (soft * (mx.log(soft) - own)).sum(-1).mean() * warmth**2


def distilled(sign):
    return lambda model, batch: 0.5 * nats(model, batch) + sign * 0.5 * divergence(model, batch)


def found(loss):
    return [
        (f.code, f.severity)
        for f in diagnose(tiny.subject(loss=loss), rungs=["data", "init"]).findings
        if f.code in ("wrong-loss", "loss-sign")
    ]


@pytest.mark.parametrize(
    "share, added, severity",
    [(0.5, 2.0, "error"), (0.5, 0.5, "error"), (1.0, 2.0, "warning"), (1 / math.log(2), -1.0, "warning")],
)
def test_a_constant_added_to_a_loss_is_found(share, added, severity):
    loss = lambda model, batch: share * nats(model, batch) + added  # noqa: E731
    formula = loss_formula(Bench(tiny.subject(loss=loss)))
    assert formula.factor == pytest.approx(share, rel=1e-3)
    assert formula.added == pytest.approx(added, rel=1e-3)
    assert found(loss) == [("wrong-loss", severity)]


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.3])
def test_smoothing_is_no_constant(smoothing):
    def loss(model, batch):
        logits = model(batch.inputs)
        return nn.losses.cross_entropy(logits, batch.targets, label_smoothing=smoothing, reduction="mean")

    formula = loss_formula(Bench(tiny.subject(loss=loss)))
    assert (formula.smoothing, formula.added) == (pytest.approx(smoothing, abs=1e-3), 0)


def test_a_term_with_the_wrong_sign_makes_a_model_surer_where_it_is_wrong():
    right, wrong = (demands(Bench(tiny.subject(loss=distilled(sign)))) for sign in (1, -1))
    assert (right.deeper, wrong.deeper) == (0, 1)
    assert found(distilled(1)) == []
    assert found(distilled(-1)) == [("wrong-loss", "error")]


def over_all(model, batch):
    logits = model(batch.inputs)
    chosen = mx.take_along_axis(logits, batch.targets[..., None], axis=-1)
    return (mx.logsumexp(logits) - chosen).mean()


def over_places(model, batch):
    own = nn.log_softmax(model(batch.inputs) / 2, axis=-2)
    return (
        0.5 * nats(model, batch) - 0.5 * (mx.softmax(TEACHER[batch.inputs] / 2, axis=-1) * own).sum(-1).mean()
    )


def with_penalty(model, batch):
    return nats(model, batch) + 1e-2 * mx.logsumexp(model(batch.inputs), axis=-1).square().mean()


def preferred(model, batch):
    """Of each two rows the first is preferred (DPO without its reference)."""
    told = -nn.losses.cross_entropy(model(batch.inputs), batch.targets).mean(-1)
    return nats(model, batch) - nn.log_sigmoid(told[::2] - told[1::2]).mean()


SOUND, TIED = (nats, with_penalty, preferred, distilled(1)), (over_all, over_places)


@pytest.mark.parametrize("loss", [*SOUND, *TIED])
def test_a_softmax_over_other_axes_ties_places_together(loss):
    tied = demands(Bench(tiny.subject(loss=loss))).tied
    assert tied > 0.05 if loss in TIED else tied < 1e-3
    assert found(loss) == [("wrong-loss", "error")] * (loss in TIED)
