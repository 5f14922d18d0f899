"""The first checks of rung init, each on a fault and on the sound setup that looks most like it."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlxstories.batch import Batch
from mlxstories.ladder import Subject, climb  # noqa: F401  (registers the checks)
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.checks.init.loss_formula import judge_objective
from mlxstories.ladder.registry import CHECKS
from mlxstories.ladder.verdict import FAILED, PASSED, SKIPPED

V, T, B = 13, 16, 4


class Tiny(nn.Module):
    """Embedding and positions, a nonlinearity, a head; then ``last`` on its logits."""

    def __init__(self, ids=V, positions=T, last=lambda logits: logits):
        super().__init__()
        self.embed = nn.Embedding(ids, 16)
        self.places = nn.Embedding(positions, 16)
        self.head = nn.Linear(16, V)
        self.last = last

    def __call__(self, tokens):
        return self.last(self.head(mx.tanh(self.embed(tokens) + self.places(mx.arange(tokens.shape[1])))))


def batches(seed):
    rng = np.random.default_rng(seed)
    for batch in range(6):
        rows = np.cumsum(rng.integers(1, 3, (B, T + 1)), axis=1) % V
        mask = (np.arange(T) < np.array([[T], [T], [T // 2], [1 + batch % 2]])).astype(np.float32)
        yield Batch(mx.array(rows[:, :-1]), mx.array(rows[:, 1:]), mx.array(mask))


def masked(model, batch):
    losses = nn.losses.cross_entropy(model(batch.inputs), batch.targets)
    return (losses * batch.mask).sum() / batch.mask.sum()


def ask(name, *, width=None, **fields):
    fields = {"model": Tiny, "vocab_size": V, "train_batches": batches, **fields}
    check = CHECKS[name]
    verdict = check.ask(Bench(Subject(**fields), 0, width=width), check.gauges())
    assert {draft.code for draft in verdict.drafts} <= set(check.causes)
    return verdict


def told(verdict):
    return verdict.status, [(draft.code, draft.severity) for draft in verdict.drafts]


@pytest.mark.parametrize("size", [{"ids": V - 1}, {"positions": T - 1}])
def test_a_table_with_too_few_rows(size):
    verdict = ask("embedding tables", model=lambda: Tiny(**size), width=T // 2)
    assert told(verdict) == (FAILED, [("token-out-of-range", "error")])
    assert ask("embedding tables", width=T // 2).status == PASSED


def test_fewer_logits_than_ids():
    verdict = ask("embedding tables", vocab_size=V + 1, model=lambda: Tiny(ids=V + 1))
    assert verdict.drafts[0].evidence == {"id": V, "rows": V}


def test_logits_that_are_no_numbers():
    verdict = ask("logits finite", model=lambda: Tiny(last=mx.sqrt))
    assert told(verdict) == (FAILED, [("not-finite", "error")])
    # The id 0 is banned in vain where it is a target; an id that is none may be.
    banned = mx.where(mx.arange(V) == 0, -mx.inf, 0.0)
    assert ask("logits finite", model=lambda: Tiny(last=lambda logits: logits + banned)).status == FAILED
    assert ask("logits finite").status == PASSED


def test_a_banned_token_ties_no_rows_and_places_together():
    banned = mx.where(mx.arange(V) == 1, -mx.inf, 0.0)
    subject = dict(model=lambda: Tiny(last=lambda logits: logits + banned))
    assert ask("rows are independent", **subject).status == PASSED
    assert ask("sees no later token", **subject).status == PASSED


def test_a_loss_that_is_no_number_on_the_shortest_row():
    def off_by_one(model, batch):
        losses = nn.losses.cross_entropy(model(batch.inputs), batch.targets)
        return (losses * batch.mask).sum() / (batch.mask.sum() - 1)

    verdict = ask("loss finite", loss=off_by_one)
    assert told(verdict) == (FAILED, [("not-finite", "error")])
    assert verdict.drafts[0].evidence["real_tokens"] == [1]
    assert ask("loss finite", loss=masked).status == PASSED


def test_probabilities_in_place_of_logits():
    verdict = ask("model returns logits", model=lambda: Tiny(last=lambda x: mx.softmax(x, axis=-1)))
    assert told(verdict) == (FAILED, [("double-softmax", "error")])
    logs = ask("model returns logits", model=lambda: Tiny(last=lambda x: x - mx.logsumexp(x, -1, True)))
    assert logs.status == PASSED


@pytest.mark.parametrize(
    "times, expected",
    [(1, (PASSED, [])), (100, (FAILED, [("bad-initialization", "error")]))],
)
def test_first_losses_far_from_guessing(times, expected):
    assert told(ask("first loss near ln V", model=lambda: Tiny(last=lambda x: times * x))) == expected


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

    name = "loss is the masked cross-entropy"
    assert ask(name).detail == "the default"
    assert told(ask(name, loss=masked)) == (PASSED, [])
    assert told(ask(name, loss=unmasked)) == (FAILED, [("padding-in-loss", "error")])
    assert told(ask(name, loss=smoothed)) == (PASSED, [("smoothed-validation-loss", "note")])
    flat = ask(name, loss=lambda m, b: smoothed(m, b, 0.6))
    assert told(flat) == (FAILED, [("wrong-loss", "error")])
    assert told(ask(name, loss=lambda m, b: -masked(m, b))) == (FAILED, [("loss-sign", "error")])
    assert ask(name, loss=hinge).status == SKIPPED


def test_a_loss_that_needs_more_of_the_model_is_read_by_its_own_logits():
    def regularised(model, batch):
        return masked(model, batch) + 0 * model.head.weight.sum()

    assert told(ask("loss is the masked cross-entropy", loss=regularised)) == (PASSED, [])


def test_a_mean_over_padding_is_a_warning_where_there_is_none():
    from mlxstories.ladder.bench.loss.objective import Objective

    found = Objective(1, 1, 0.0, False, 0, "mean", 0.0)
    assert [d.severity for d in judge_objective(found, "train_step", pads=False, size=V)] == ["warning"]
    assert [d.severity for d in judge_objective(found, "train_step", pads=True, size=V)] == ["error"]


def test_a_public_mask_that_is_only_compared_is_no_dead_parameter():
    class Masked(Tiny):
        def __init__(self):
            super().__init__()
            self.triangle = mx.tril(mx.ones((T, T)))
            self.unused = nn.Linear(16, 16) if self.dead else None

        def __call__(self, tokens):
            x = self.embed(tokens) + self.places(mx.arange(tokens.shape[1]))
            weights = mx.where(self.triangle == 0, 0.0, 1.0) / T
            return self.head(mx.tanh(x + weights[: x.shape[1], : x.shape[1]] @ x))

    for dead, status in ((False, PASSED), (True, FAILED)):
        Masked.dead = dead
        verdict = ask("gradients alive", model=Masked)
        assert verdict.status == status
        assert all("triangle" not in draft.message for draft in verdict.drafts)
