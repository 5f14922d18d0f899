"""The formula of a loss, from its values."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import T, V, ask, masked, subject, told, uneven

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.loss.objective import Objective, _solve, fit, recover
from mlxstories.ladder.checks.init.loss_formula import judge_objective
from mlxstories.ladder.verdict import FAILED, PASSED, SKIPPED


def loss_of(reduce=True, smoothing=0.0, sign=1.0, softmax=False, shift=0):
    def loss(model, batch):
        logits = model(batch.inputs)
        targets, mask = batch.targets, batch.mask
        if softmax:
            logits = mx.softmax(logits, axis=-1)
        if shift:
            logits, targets, mask = logits[:, :-shift], targets[:, shift:], mask[:, shift:]
        nats = nn.losses.cross_entropy(logits, targets, label_smoothing=smoothing)
        return sign * ((nats * mask).sum() / mask.sum() if reduce else nats.mean())

    return loss


@settings(max_examples=15)
@given(
    smoothing=st.sampled_from([0.0, 0.02, 0.1, 0.3]),
    sign=st.sampled_from([1.0, -1.0]),
    softmax=st.booleans(),
    shift=st.sampled_from([0, 1]),
    masked=st.booleans(),
)
def test_a_loss_is_recovered_from_its_values(smoothing, sign, softmax, shift, masked):
    loss = loss_of(masked, smoothing, sign, softmax, shift)
    bench = Bench(subject(loss=loss), 0)
    found = recover(bench, lambda stub, batch: float(loss(stub, batch.user())), with_mask=True)
    assert found is not None
    assert (found.sign, found.softmaxes, found.shift) == (sign, 2 if softmax else 1, shift)
    assert found.masked is masked
    assert found.smoothing == pytest.approx(smoothing, abs=0.01)


def test_a_loss_of_another_kind_is_not_guessed():
    def focal(model, batch):
        p = mx.exp(-nn.losses.cross_entropy(model(batch.inputs), batch.targets))
        return -((1 - p) ** 2 * mx.log(p)).mean()

    bench = Bench(subject(loss=focal), 0)
    assert recover(bench, lambda stub, batch: float(focal(stub, batch.user())), with_mask=True) is None


def test_smoothing_by_less_than_nothing_or_more_than_all_is_no_formula():
    rng = np.random.default_rng(8)
    cases, terms = [], []
    for _ in range(10):
        logits = rng.standard_normal((2, T, V)).astype(np.float32)
        targets = rng.integers(0, V, (2, T))
        logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        cases.append((logits, targets, targets, np.ones((2, T), np.float32)))
        terms.append((-np.take_along_axis(logs, targets[..., None], -1).mean(), -logs.mean()))
    told, flat = np.array(terms, dtype=np.float64).T
    assert fit(cases, 0.9 * told + 0.1 * flat).smoothing == pytest.approx(0.1, abs=1e-3)
    assert fit(cases, 1.4 * told - 0.4 * flat) is None
    assert fit(cases, 1.4 * flat - 0.4 * told) is None


def test_a_loss_in_16_bits_smooths_no_labels():
    fitted = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        terms = np.stack([5.55 + 0.2 * rng.random(10), 5.65 + 0.05 * rng.random(10)], axis=1)
        factor, smoothing, _ = _solve(terms, terms @ [0.9, 0.1])
        assert (factor, smoothing) == (pytest.approx(1), pytest.approx(0.1))
        rounded = np.array(mx.array(terms[:, 0]).astype(mx.bfloat16).astype(mx.float32))
        if (solved := _solve(terms, rounded)) is not None:
            fitted.append(solved[1])
    assert len(fitted) > 5 and not any(fitted)


def test_what_is_added_to_a_loss_smooths_no_labels():
    rng = np.random.default_rng(0)
    terms = np.stack([5.55 + 0.2 * rng.random(10), 5.65 + 0.01 * rng.random(10)], axis=1)
    assert _solve(terms, terms[:, 0] + 16.0) is None  # the square of all weights, say


def test_values_that_hardly_differ_are_explained_by_no_formula():
    solved = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        terms = np.stack([5.55 + 0.02 * rng.random(8), 5.56 + 0.0002 * rng.random(8)], axis=1)
        assert _solve(terms, terms[:, 0]) is not None
        solved += _solve(terms, 5.55 + 0.02 * rng.random(8)) is not None  # within 0.2 % of any mean
    assert solved == 0


def formula(**fields):
    """What the check says of a loss, of rows of unequal length."""
    return ask("loss is the masked cross-entropy", train_batches=uneven, **fields)


def test_formulas_of_losses():
    def unmasked(model, batch):
        return nn.losses.cross_entropy(model(batch.inputs), batch.targets).mean()

    def hinge(model, batch):
        logits = model(batch.inputs)
        right = mx.take_along_axis(logits, batch.targets[..., None], -1)
        return mx.maximum(0, 0.1 + logits.max(-1, keepdims=True) - right).mean()

    def smoothed(model, batch, by=0.1):
        losses = nn.losses.cross_entropy(model(batch.inputs), batch.targets, label_smoothing=by)
        return (losses * batch.mask).sum() / batch.mask.sum()

    assert formula().detail == "the default"
    assert told(formula(loss=masked)) == (PASSED, [])
    assert told(formula(loss=unmasked)) == (FAILED, [("padding-in-loss", "error")])
    assert told(formula(loss=smoothed)) == (PASSED, [("smoothed-validation-loss", "note")])
    flat = formula(loss=lambda m, b: smoothed(m, b, 0.6))
    assert told(flat) == (FAILED, [("wrong-loss", "error")])
    assert told(formula(loss=lambda m, b: -masked(m, b))) == (FAILED, [("loss-sign", "error")])
    assert formula(loss=hinge).status == SKIPPED


def test_a_loss_that_needs_more_of_the_model_is_read_by_its_own_logits():
    def regularised(model, batch):
        return masked(model, batch) + 0 * model.head.weight.sum()

    assert told(formula(loss=regularised)) == (PASSED, [])


def test_a_mean_over_padding_is_a_warning_where_there_is_none():
    found = Objective(1, 1, 0.0, False, 0, "mean", 0.0)
    assert [d.severity for d in judge_objective(found, "train_step", pads=False, size=V)] == ["warning"]
    assert [d.severity for d in judge_objective(found, "train_step", pads=True, size=V)] == ["error"]


def test_what_is_wrong_with_a_formula_is_in_its_words():
    found = Objective(-1, 2, 0.0, False, 1, "mean", 0.0)
    odd = "mean, smoothing 0, negative, 2 softmaxes, targets shifted by +1, masked cells count"
    assert str(found) == odd and str(Objective(1, 1, 0.1, True, 0, "sum", 0.0)) == "sum, smoothing 0.1"
