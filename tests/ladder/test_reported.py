"""Small measurements that public reports asked for: rotations, the optimiser alone, whom validation asks."""

from __future__ import annotations

import copy

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest

from mlxstories.faults.reported import Backwards
from mlxstories.ladder import Subject
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.data.ends import ends
from mlxstories.ladder.bench.evaluation.evaluation import swapped
from mlxstories.ladder.bench.loss.pairing import pairing
from mlxstories.ladder.bench.model.modules import repeated_modules, second_tables
from mlxstories.ladder.bench.model.rotations import rotations
from mlxstories.ladder.bench.step.onward import counted, onward
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import CHECKS

V, T, B, D, H = 17, 12, 4, 16, 2


class Turned(nn.Module):
    """One layer of causal attention whose queries and keys are turned over this axis of [B, T, H, d]."""

    def __init__(self, axis: int | None = 1):
        super().__init__()
        self.embed, self.head = nn.Embedding(V, D), nn.Linear(D, V)
        self.query, self.key = nn.Linear(D, D), nn.Linear(D, D)
        self.rope, self.axis = nn.RoPE(D // H), axis

    def turned(self, x):
        if self.axis is None:
            return x.swapaxes(1, 2)
        return self.rope(x.swapaxes(1, 2)) if self.axis == 1 else self.rope(x).swapaxes(1, 2)

    def __call__(self, tokens):
        x = self.embed(tokens)
        split = (*x.shape[:2], H, D // H)
        q, k = (self.turned(layer(x).reshape(split)) for layer in (self.query, self.key))
        mask = nn.MultiHeadAttention.create_additive_causal_mask(x.shape[1])
        weights = mx.softmax(q @ k.swapaxes(-1, -2) + mask, axis=-1)
        return self.head((weights @ x.reshape(split).swapaxes(1, 2)).swapaxes(1, 2).reshape(x.shape))


def batches(seed):
    table = np.random.default_rng(seed).integers(1, V, (4 * B, T + 1))
    return ((mx.array(w[:, :-1]), mx.array(w[:, 1:])) for w in np.split(table, 4))


def bench(**fields) -> Bench:
    given = {"model": Turned, "vocab_size": V, "train_batches": batches, "val_batches": lambda: batches(99)}
    return Bench(Subject(**{**given, **fields}))


def test_rotations_by_place_have_an_effect_and_those_by_head_have_none():
    assert rotations(bench()) > 1e-2
    assert rotations(bench(model=lambda: Turned(axis=2))) < 1e-5
    assert rotations(bench(model=lambda: Turned(axis=None))) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: optim.SGD(0.1, momentum=0.9, nesterov=True, dampening=0.0),
        lambda: optim.AdamW(1e-3, weight_decay=0.1),
        lambda: optim.Lion(1e-4),
        lambda: optim.Adafactor(),
        lambda: optim.Muon(1e-2),
        lambda: optim.AdamW(optim.linear_schedule(0.0, 1e-3, 10)),
        lambda: optim.MultiOptimizer([optim.SGD(0.1), optim.Adam(1e-3)], [lambda path, _: "head" in path]),
    ],
)
def test_sound_optimizers_keep_descending_along_one_gradient(make):
    cosines = onward(bench(optimizer=make))
    assert cosines
    assert min(cosines) > 0.05


def test_a_velocity_added_to_the_weights_climbs_after_a_while():
    cosines = onward(bench(optimizer=Backwards))
    assert cosines[0] > 0.9
    assert cosines[-1] < -0.9


def stepping(raise_by: int = 0, times: int = 1):
    def step(model, optimizer, batch):
        def loss(m):
            return nn.losses.cross_entropy(m(batch[0]), batch[1]).mean()

        for _ in range(times):
            value, gradients = nn.value_and_grad(model, loss)(model)
            optimizer.state["step"] = optimizer.step + raise_by
            optimizer.update(model, gradients)
        return value

    return step


def test_the_count_of_steps_rises_by_one_an_update_and_by_more_where_it_is_raised():
    given = {"optimizer": lambda: optim.SGD(optim.linear_schedule(0.1, 0.0, 100))}
    assert counted(bench(train_step=stepping(), **given)) == 1
    assert counted(bench(train_step=stepping(times=3), **given)) == 1
    assert counted(bench(train_step=stepping(raise_by=3), **given)) == 4


def paired(heard):
    """A loss of [B, T] targets and the logits that ``heard`` brings to [B * T, V]."""

    def loss(model, batch):
        nats = nn.losses.cross_entropy(heard(model(batch[0])), batch[1].reshape(-1))
        mask = batch[2].reshape(-1)
        return (nats * mask).sum() / mask.sum()

    return loss


def in_one_line(model, batch):
    return nn.losses.cross_entropy(model(batch[0]).reshape(-1, V)[:-1], batch[1].reshape(-1)[1:]).mean()


def turned_round(model, batch):
    nats, mask = nn.losses.cross_entropy(model(batch[0]), batch[1]), 1 - batch[2]
    return (nats * mask).sum() / mask.sum()


def masked(seed):
    mask = mx.array(np.arange(T) < T - 3).astype(mx.float32) * mx.ones((B, 1))
    return ((x, y, mask) for x, y in batches(seed))


@pytest.mark.parametrize(
    ("loss", "own", "offset", "nowhere"),
    [
        (paired(lambda z: z.reshape(-1, V)), 1.0, 0, 0),
        (paired(lambda z: z.swapaxes(1, 2).reshape(-1, V)), 0.5, None, 0),
        (in_one_line, 0.0, 1, 0),
        (turned_round, 0.0, 0, 1),
    ],
)
def test_the_gradient_says_which_logits_answer_a_target(loss, own, offset, nowhere):
    found = pairing(bench(train_batches=masked, loss=loss))
    assert found.own == own if own in (0, 1) else found.own < own
    assert offset is None or found.offset[0] == offset
    assert found.nowhere == nowhere
    assert found.masked == (loss in (in_one_line, turned_round))


def test_a_loss_that_draws_something_is_not_asked_for_pairs():
    def drawn(model, batch):
        return (nn.losses.cross_entropy(model(batch[0]), batch[1]) * mx.random.uniform(shape=(B, T))).mean()

    assert pairing(bench(loss=drawn)) is None


class Untied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(V, D), nn.Linear(D, V, bias=False)

    def __call__(self, tokens):
        return self.head(self.embed(tokens))


def evaluate(model, given):
    model.eval()
    losses = [float(nn.losses.cross_entropy(model(b[0]), b[1]).mean()) for b in given]
    return {"loss": sum(losses) / len(losses)}


def with_another_head(model, given):
    own, model.head.weight = model.head.weight, model.embed.weight
    result = evaluate(model, given)
    model.head.weight = own
    return result


def averaged(model, given):
    """All weights replaced, as by averages that began with another model."""
    own = model.parameters()
    model.update(Untied().parameters())
    result = evaluate(model, given)
    model.update(own)
    return result


@pytest.mark.parametrize(("how", "names"), [(with_another_head, 1), (averaged, 2), (evaluate, 0)])
def test_validation_that_exchanges_some_weights_does_not_ask_the_model_that_is_trained(how, names):
    asked = bench(model=Untied, evaluate=how)
    found = swapped(asked)
    assert (len(found.names), found.count) == (names, 2)
    assert (found.change > 0.5) == (names > 0)
    checked = CHECKS["validation asks the model that is trained"]
    drafts = checked.ask(asked, Gauges(checked.limits)).drafts
    assert [draft.evidence["exchanged"] for draft in drafts] == [["head.weight"]] * (names == 1)


class Blocks(nn.Module):
    """Wide layers that start as copies of one, as a state space's tables do."""

    def __init__(self, head_of_embedding: bool):
        super().__init__()
        self.embed, self.head = nn.Embedding(V, D), nn.Linear(D, V, bias=False)
        wide = nn.Sequential(nn.Linear(D, 2 * V), nn.GELU(), nn.Linear(2 * V, D))
        self.blocks = [copy.deepcopy(wide) for _ in range(3)]
        if head_of_embedding:
            self.head.weight = self.embed.weight

    def __call__(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def test_layers_that_start_as_copies_are_no_tied_weights():
    assert second_tables(bench(model=lambda: Blocks(False))) == []
    assert second_tables(bench(model=lambda: Blocks(True))) == [("embed.weight", "head.weight")]


def test_a_list_of_one_block_times_three_is_told_as_one_module():
    class Repeated(Blocks):
        def __init__(self):
            super().__init__(False)
            self.blocks = self.blocks[:1] * 3

    checked = CHECKS["gradients alive"]
    told = checked.ask(bench(model=Repeated), Gauges(checked.limits))
    assert told.status == "passed"
    assert [(d.severity, d.evidence["paths"]) for d in told.drafts] == [
        ("warning", ["blocks.0", "blocks.1", "blocks.2"])
    ]
    assert repeated_modules(bench(model=lambda: Blocks(False))) == {}


def test_a_module_by_two_names_is_tied_on_purpose():
    class Tied(Untied):
        def __init__(self):
            super().__init__()
            self.head = self.embed

        def __call__(self, tokens):
            return self.head.as_linear(self.embed(tokens))

    assert repeated_modules(bench(model=Tied)) == {}


@pytest.mark.parametrize("of_tokens", [False, True])
def test_a_mean_of_the_tokens_perplexities_is_an_error(of_tokens):
    def figures(model, given):
        model.eval()
        nats = mx.concatenate([nn.losses.cross_entropy(model(b[0]), b[1]).reshape(-1) for b in given])
        mean = nats.mean()
        return {
            "loss": mean.item(),
            "perplexity": (mx.exp(nats).mean() if of_tokens else mx.exp(mean)).item(),
        }

    asked = CHECKS["other figures of validation"]
    drafts = asked.ask(bench(model=Untied, evaluate=figures), Gauges(asked.limits)).drafts
    assert [(draft.code, draft.severity) for draft in drafts] == [("metric-mismatch", "error")] * of_tokens


class Words:
    """Ids are numbers; 16 ends a text."""

    eos_id = 16

    def encode(self, text):
        return [int(word) for word in text.split()]

    def decode(self, ids):
        return " ".join(map(str, ids))


def ended(longer: int, fill: int):
    """Texts that end with 16, padded with ``fill``; the mask is so many cells too long."""

    def given(seed):
        rng = np.random.default_rng(seed)
        for _ in range(8):
            lengths = rng.integers(4, T - 3, (B, 1))
            places = np.arange(T + 1)
            table = np.where(places < lengths, rng.integers(1, 15, (B, T + 1)), fill)
            table = np.where(places == lengths, 16, table)
            mask = places[1:] <= lengths + longer
            yield mx.array(table[:, :-1]), mx.array(table[:, 1:]), mx.array(mask.astype(np.float32))

    return given


@pytest.mark.parametrize(("longer", "fill", "beyond"), [(0, 0, 0), (1, 0, 1), (0, 16, 0), (1, 16, 0)])
def test_padding_that_counts_behind_the_end_is_told(longer, fill, beyond):
    asked = bench(train_batches=ended(longer, fill), tokenizer=Words())
    assert ends(asked).beyond == beyond
    checked = CHECKS["nothing is trained after the end"]
    drafts = checked.ask(asked, Gauges(checked.limits)).drafts
    assert [(draft.code, draft.severity) for draft in drafts] == [("padding-in-loss", "warning")] * beyond
