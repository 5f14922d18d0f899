"""Tables, logits and first losses of the untrained model, each beside the sound setup that looks most like it."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import plain
import pytest
from plain import given
from tiny import T, V, masked, told, uneven

from mlxstories.ladder import Subject
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.untrained import TableReads, table_reads
from mlxstories.ladder.registry import CHECKS
from mlxstories.ladder.verdict import FAILED, PASSED


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


def ask(name, *, width=None, **fields):
    fields = {"model": Tiny, "vocab_size": V, "train_batches": uneven, **fields}
    check = CHECKS[name]
    verdict = check.ask(Bench(Subject(**fields), 0, width=width), check.gauges())
    assert {draft.code for draft in verdict.drafts} <= set(check.causes)
    return verdict


@pytest.mark.parametrize("size", [{"ids": V - 1}, {"positions": T - 1}])
def test_a_table_with_too_few_rows(size):
    verdict = ask("embedding tables", model=lambda: Tiny(**size), width=T // 2)
    assert told(verdict) == (FAILED, [("token-out-of-range", "error")])
    assert ask("embedding tables", width=T // 2).status == PASSED


def test_fewer_logits_than_ids():
    verdict = ask("embedding tables", vocab_size=V + 1, model=lambda: Tiny(ids=V + 1))
    assert verdict.drafts[0].evidence == {"id": V, "rows": V}


@pytest.mark.parametrize("rows", [plain.V - 1, plain.V - 5])
def test_logits_for_too_few_ids_name_the_highest(rows):
    (draft,) = given("embedding tables", {table_reads: TableReads([], rows, plain.T)}).drafts
    assert draft.evidence == {"id": plain.V - 1, "rows": rows}
    assert f"at least {plain.V} ids" in draft.fix
    assert given("embedding tables", {table_reads: TableReads([], plain.V, plain.T)}).status == "passed"


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
