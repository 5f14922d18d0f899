"""What of a captured batch counts: masks, lengths, spans, padding and targets."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlxstories.ladder import diagnose
from tests.ladder.scripts import LOOP, MODEL, B, T

MASKS = {
    "lengths": ("mx.arange(1, y.shape[1] + 1)[None] < lengths[:, None]", "lengths"),
    "spans, as in mlx-lm": (
        "(mx.arange(1, T + 1)[None] >= lengths[:, :1]) & (mx.arange(1, T + 1)[None] < lengths[:, 1:])",
        "np.stack([0 * lengths, lengths], 1)",
    ),
}


@pytest.mark.parametrize("form", MASKS)
def test_a_masked_loss_tells_its_mask_and_lengths_follow(captured, form):
    mask, handed = MASKS[form]
    text = (
        MODEL
        + """
def objective(model, batch, lengths):
    x, y = batch[:, :-1], batch[:, 1:]
    mask = MASK
    return (nn.losses.cross_entropy(model(x), y) * mask).sum() / mask.sum()
optimizer = optim.AdamW(1e-2)
step = nn.value_and_grad(model, objective)
for i in range(500):
    lengths = rng.integers(3, T + 1, B)
    data = np.array(rows()) * (np.arange(T + 1)[None] < lengths[:, None])
    loss, grads = step(model, mx.array(data), mx.array(HANDED))
    optimizer.update(model, grads)
"""
    )
    script = captured(text.replace("MASK", mask).replace("HANDED", handed))
    inputs, targets, mask = script.batches[2]
    assert ((targets != 0) == (mask > 0)).all()
    part = inputs[:2], targets[:2], mask[:2]
    model = script.subject.model()
    nats = nn.losses.cross_entropy(model(mx.array(part[0])), mx.array(part[1])) * mx.array(part[2])
    assert float(script.subject.loss(model, part)) == pytest.approx(
        float(nats.sum()) / part[2].sum(), rel=1e-4
    )


@pytest.mark.parametrize("kind", ["mx.float32", "mx.int32"])
def test_a_mask_beside_whole_rows_is_cut_as_they_are(captured, kind):
    text = MODEL + (
        "def objective(model, batch, told):\n"
        "    x, y, mask = batch[:, :-1], batch[:, 1:], told[:, 1:]\n"
        "    return (nn.losses.cross_entropy(model(x), y) * mask).sum() / mask.sum()\n"
        "optimizer = optim.AdamW(1e-2)\nstep = nn.value_and_grad(model, objective)\n"
        "for i in range(500):\n"
        "    answer = np.arange(T + 1)[None] >= rng.integers(2, T, (B, 1))\n"
        f"    loss, grads = step(model, rows(), mx.array(answer).astype({kind}))\n"
        "    optimizer.update(model, grads)\n"
    )
    script = captured(text)
    inputs, targets, mask = script.batches[2]
    assert (mask[:, -1] == 1).all() and (mask[:, 0] == 0).all()
    part, model = (inputs[:2], targets[:2], mask[2:]), script.subject.model()  # a mask of other rows
    nats = nn.losses.cross_entropy(model(mx.array(part[0])), mx.array(part[1])) * mx.array(part[2])
    wanted = float(nats.sum()) / part[2].sum()
    assert float(script.subject.loss(model, part)) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(("padding", "whole"), [(0, False), (11, False), (11, True)])
def test_a_loss_that_looks_for_its_padding_finds_it_in_the_targets(captured, padding, whole):
    masked = """
def loss_fn(model, x, y):
    mask = y != PAD
    return (nn.losses.cross_entropy(model(x), y) * mask).sum() / mask.sum()


def rows():
    data = rng.integers(1, V - 1, (B, T + 1))
    data[1, 6:] = PAD
    return mx.array(data)
"""
    text = MODEL + masked.replace("PAD", str(padding)) + LOOP
    if whole:  # rows of T + 1 are handed over, and cut in the loss
        text = text.replace(
            "loss_fn(model, x, y):\n    mask", "loss_fn(model, z):\n    x, y = z[:, :-1], z[:, 1:]\n    mask"
        )
        text = text.replace("step(model, data[:, :-1], data[:, 1:])", "step(model, data)")
    script = captured(text)
    inputs, targets, mask = script.batches[1]
    assert script.roles.padding == padding and ((targets != padding) == (mask > 0)).all() and not mask.all()
    model = script.subject.model()
    nats = np.array(nn.losses.cross_entropy(model(mx.array(inputs)), mx.array(targets)))[mask > 0]
    assert float(script.subject.loss(model, script.batches[1])) == pytest.approx(nats.mean(), rel=1e-4)
    assert set(script.roles.places.values()) == ({"tokens"} if whole else {"inputs", "targets"})
    drawn = np.where(mask > 0, targets, 5)  # what the ladder draws at cells that do not count
    assert float(script.subject.loss(model, (inputs, drawn, mask))) == pytest.approx(nats.mean(), rel=1e-4)
    fewer = mask * (np.arange(T) < 3)  # what it leaves out of rows of its own
    nats = np.array(nn.losses.cross_entropy(model(mx.array(inputs)), mx.array(targets)))[fewer > 0]
    assert float(script.subject.loss(model, (inputs, drawn, fewer))) == pytest.approx(nats.mean(), rel=1e-4)


CUT = """
def objective(model, batch, spans):
    x, y = batch[:, :-1], batch[:, 1:]
    steps = mx.arange(1, T + 1)[None]
    mask = (steps >= spans[:, :1]) & (steps <= spans[:, 1:])
    return (nn.losses.cross_entropy(model(x), y) * mask).sum() / mask.sum()


optimizer = optim.AdamW(1e-2)
step = nn.value_and_grad(model, objective)
for i in range(500):
    lengths = np.full(B, T + 1) if i == 0 else rng.integers(3, T + 2, B)
    data = np.array(rows()) * (np.arange(T + 1)[None] <= lengths[:, None])
    loss, grads = step(model, mx.array(data), mx.array(np.stack([0 * lengths, lengths], 1)))
    optimizer.update(model, grads)
"""


def test_spans_beyond_the_end_of_rows_that_are_cut_are_understood(captured):
    script = captured(MODEL + CUT)  # as mlx-lm cuts them, and the first batch has no shorter row
    for _, targets, mask in script.batches:
        assert ((targets != 0) <= (mask > 0)).all() and ((mask > 0).sum(1) >= 3).all()
    inputs, targets, mask = script.batches[0]
    assert mask.all() and not script.batches[1][2].all()
    mask = np.tile(np.arange(T) < 4, (B, 1)).astype(np.float32)
    model, changed = script.subject.model(), inputs.copy()
    changed[:, 5:] = 1 + changed[:, 5:] % 11  # of the tokens, the fifth is a target
    losses = [float(script.subject.loss(model, (x, targets, mask))) for x in (inputs, changed)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


@pytest.mark.parametrize("left_out", [0, -1])
def test_a_target_that_tells_what_counts_stands_wherever_nothing_does(captured, left_out):
    text = MODEL.replace(
        'nn.losses.cross_entropy(model(x), y, reduction="mean")',
        "(nn.losses.cross_entropy(model(x), mx.maximum(y, 0)) * (y != OUT)).sum() / (y != OUT).sum()",
    )
    loop = LOOP.replace(
        "data = rows()", "data = rows()\n    y = mx.where(mx.arange(T) < 5, data[:, 1:], OUT)"
    )
    script = captured((text + loop.replace("data[:, 1:])", "y)")).replace("OUT", str(left_out)))
    inputs, targets, mask = script.batches[1]
    assert not mask[:, 5:].any() and mask[:, :5].all()
    model, changed = script.subject.model(), np.where(mask > 0, targets, 3)
    losses = [float(script.subject.loss(model, (inputs, y, mask))) for y in (targets, changed)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_rows_in_which_nothing_counts_are_understood(captured):
    """As where a prompt fills a row, and its answer is cut off."""
    script = captured(MODEL + CUT.replace("0 * lengths", "np.where(np.arange(B) == 1, T + 3, 2)"))
    assert all(mask[0].any() and not mask[1].any() for _, _, mask in script.batches)
    inputs, targets, mask = (part[:2] for part in script.batches[2])
    model = script.subject.model()
    nats = nn.losses.cross_entropy(model(mx.array(inputs)), mx.array(targets)) * mx.array(mask)
    own = script.subject.loss(model, (inputs, targets, mask))
    assert float(own) == pytest.approx(float(nats.sum()) / mask.sum(), rel=1e-5)


def test_targets_that_are_the_inputs_are_captured(captured):
    script = captured(MODEL + LOOP.replace("data[:, 1:])", "mx.array(data[:, :-1]))"))
    assert (script.batches[1][0] == script.batches[1][1]).all()
    model, batch = script.subject.model(), tuple(np.random.default_rng(3).integers(0, 12, (2, B, T)))
    wanted = nn.losses.cross_entropy(model(mx.array(batch[0])), mx.array(batch[1])).mean()
    assert float(script.subject.loss(model, batch)) == pytest.approx(float(wanted), rel=1e-5)


PADDED = """
def rows():
    data = rng.integers(1, V - 1, (B, T + 1))
    return mx.array(np.where(np.arange(T + 1)[None] < rng.integers(3, T + 2, (B, 1)), data, -1))


def loss_fn(model, x, y):
    mask = COUNTED != -1
    nats = nn.losses.cross_entropy(model(mx.maximum(x, 0)), y)
    return (nats * mask).sum() / mask.sum()
"""


@pytest.mark.parametrize("counted", ["x", "y"])
def test_padding_that_the_loss_replaces_is_no_id_that_the_model_reads(captured, counted):
    text = MODEL.replace("\nmx.random.seed(0)", PADDED.replace("COUNTED", counted) + "\nmx.random.seed(0)")
    script = captured(text + LOOP)
    assert script.roles.parts.unread == (-1, 0)
    for inputs, targets, mask in script.batches[:20]:
        assert (inputs >= 0).all() and (inputs[:, 1:] == np.maximum(targets, 0)[:, :-1]).all()
        assert ((mask > 0) == ((inputs if counted == "x" else targets) > 0)).all()
    inputs, targets, mask = script.batches[3]
    model = script.subject.model()
    few = np.where(np.arange(T) < 2, mask, 0)  # another mask than its own is kept to, as well
    for part in (mask, few):
        nats = nn.losses.cross_entropy(model(mx.array(inputs)), mx.array(targets)) * mx.array(part)
        told = float(script.subject.loss(model, (inputs, targets, part)))
        assert told == pytest.approx(float(nats.sum()) / part.sum(), rel=1e-4)


def test_a_negative_target_that_the_loss_does_not_leave_out_is_found(captured):
    """As PyTorch's losses do with an ignore_index, and MLX's do not."""
    script = captured(MODEL.replace("(1, V, (B, T + 1))", "(1, V - 1, (B, T + 1))") + IGNORED)
    diagnosis = diagnose(script.subject, rungs=("data",))
    (found,) = [finding for finding in diagnosis.findings if finding.code == "token-out-of-range"]
    assert "holds id -1 in its targets, outside 0 to 11; MLX takes it for id 11" in found.message


IGNORED = LOOP.replace(
    "    loss, grads = step(model, data[:, :-1], data[:, 1:])",
    "    y = mx.array(data[:, 1:])\n    y[:, :3] = -1\n    loss, grads = step(model, data[:, :-1], y)",
)


def test_a_model_that_says_nan_from_the_start_is_captured_and_told(captured):
    text = MODEL.replace(
        "return self.out(self.drop(x + mx.tanh(before)))", "return self.out(x + before) / mx.zeros((1,)) * 0"
    )
    script = captured(text + LOOP)
    inputs, targets, _ = script.batches[0]
    np.testing.assert_array_equal(targets[:, :-1], inputs[:, 1:])
    assert diagnose(script.subject, rungs=("init",)).findings[0].code == "not-finite"
