"""What a loss asks for: which ids, of which tokens, and how much."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny
from plain import B, T, V, bench, cross_entropy, rows
from tiny import ask, judged

from mlxstories.batch import Batch
from mlxstories.ladder.bench.loss.demands import Asked, demands, uniform
from mlxstories.ladder.checks.init import demands as asking
from mlxstories.ladder.registry import CHECKS


def one_lower(model, batch):
    return nn.losses.cross_entropy(model(batch[0]), batch[1] - 1).mean()


def squared(model, batch):
    wanted = mx.arange(V) == batch[1][..., None]
    return (mx.softmax(model(batch[0]), -1) - wanted).square().mean()


def test_what_a_loss_asks_for():
    right, lower, deaf = (demands(bench(loss=loss)) for loss in (cross_entropy, one_lower, squared))
    assert right.right == 1 and right.wrong > 1
    assert lower.right == 0 and lower.beside == (-1, 1.0)
    assert deaf.right > 0.9 and deaf.wrong < 0.01


def partly(share, ids):
    def loss(model, batch):
        logits = model(batch[0])
        near, other = (nn.losses.cross_entropy(logits, t).mean() for t in (batch[1], ids(batch)))
        return (1 - share) * near + share * other

    return loss


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_the_share_of_a_loss_that_asks_for_what_was_just_read(share):
    late = demands(bench(loss=partly(share, lambda batch: batch[0])))
    pushed = (share - 1 / V) / (1 - 2 / V)  # what is asked for, less what a flat distribution gives
    assert late.read == pytest.approx(pushed * (1 - 1 / (V - 1)), abs=0.02)
    elsewhere = demands(bench(loss=partly(share, lambda batch: (batch[1] + 3) % V)))
    assert elsewhere.read < 0.05
    checked = CHECKS["the loss asks for the target"]
    drafts = checked.ask(bench(loss=partly(share, lambda batch: batch[0])), checked.gauges()).drafts
    assert [draft.code for draft in drafts] == ["wrong-loss"]


def rolled(model, batch, kept=T):
    """The inputs in one line, rolled by one; so many places of each row count."""
    inputs = batch[0]
    ahead = mx.roll(inputs.reshape(-1), -1).reshape(inputs.shape)
    return nn.losses.cross_entropy(model(inputs), ahead)[:, :kept].mean()


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (rolled, True),
        (lambda model, batch: rolled(model, batch, T - 1), False),
        (cross_entropy, False),
    ],
    ids=["over-ends", "ends-left-out", "plain"],
)
def test_a_loss_that_rolls_rows_over_their_ends(loss, told):
    check = CHECKS["the loss asks for the target"]
    drafts = check.ask(bench(loss=loss), check.gauges()).drafts
    assert [(draft.code, draft.severity) for draft in drafts] == [("wrong-loss", "error")] * told


def test_a_loss_that_draws_its_cells_ties_none_of_them():
    def drawn(model, batch):
        nats = nn.losses.cross_entropy(model(batch[0]), batch[1])
        cells = mx.random.uniform(shape=nats.shape) < mx.random.uniform(shape=(len(nats), 1))
        return (nats * cells).sum() / mx.maximum(cells.sum(), 1)

    assert demands(bench(loss=drawn)).tied == 0
    assert not judged("the loss asks for the target", loss=drawn)


def test_uniform_logits_cost_ln_v_whatever_the_mask():
    lengths = np.repeat([3, 6, 9, 12], B)

    def given(seed):
        for i in range(0, 16, B):
            w, mask = rows()[i : i + B], np.arange(T) < lengths[i : i + B, None]
            yield Batch(mx.array(w[:, :-1]), mx.array(w[:, 1:]), mx.array(mask.astype(np.float32)))

    def over_cells(model, batch):
        return (nn.losses.cross_entropy(model(batch.inputs), batch.targets) * batch.mask).mean()

    def over_tokens(model, batch):
        return over_cells(model, batch) * batch.mask.size / batch.mask.sum()

    mean = uniform(bench(train_batches=given, loss=over_tokens))
    assert mean.losses == pytest.approx([1, 1, 1], rel=1e-5)
    cells = uniform(bench(train_batches=given, loss=over_cells))
    assert cells.losses == pytest.approx(cells.shares, rel=1e-5)
    assert min(cells.shares) == 0.25 and max(cells.shares) == 1


def divided_by(more):
    def loss(model, batch):
        nats = nn.losses.cross_entropy(model(batch.inputs), batch.targets) * batch.mask
        return nats.sum() / (batch.mask.sum() + more * len(batch.mask))

    return loss


def test_one_more_cell_for_each_row_is_told_from_a_mean():
    name = "the loss counts tokens alike"
    assert judged(name, loss=divided_by(1)) == [("wrong-normalisation", "warning")]
    assert judged(name, loss=divided_by(0)) == []


def squeezed(function):
    def loss(model, batch):
        return nn.losses.cross_entropy(model(batch.inputs), function(batch.targets)).mean()

    return loss


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda targets: mx.minimum(targets, 6), "for every target above it"),
        (lambda targets: targets, ""),
        (lambda targets: mx.minimum(targets, tiny.V - 1), ""),
        (lambda targets: mx.minimum(targets, 11), ""),  # one id alone could be meant
    ],
)
def test_targets_that_the_loss_clips(function, told):
    found = ask("the loss knows every id", loss=squeezed(function))
    assert [draft.code for draft in found.drafts] == (["wrong-loss"] if told else [])
    assert all(told in draft.message for draft in found.drafts)


def test_ids_that_were_not_tried_are_not_called_lost(monkeypatch):
    tried = np.array([3, 1, 5, 2])
    for pushed, told in ((tried, []), (np.minimum(tried, 3), ["wrong-loss"])):
        found = Asked(tried, pushed, real=np.arange(tiny.V))
        monkeypatch.setattr(asking, "asked", lambda bench, found=found: found)
        assert [code for code, _ in judged("the loss knows every id")] == told
