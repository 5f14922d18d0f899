"""Kinds of mistakes told by small measurements: conventions of targets, windows, ends, and what a loss demands."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlxstories.batch import Batch
from mlxstories.ladder import Subject
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.batches import Convention, read_batch
from mlxstories.ladder.bench.data.coverage import coverage
from mlxstories.ladder.bench.data.ends import ends
from mlxstories.ladder.bench.data.variety import neighbours
from mlxstories.ladder.bench.data.windows import window_overlap
from mlxstories.ladder.bench.loss.convention import convention
from mlxstories.ladder.bench.loss.demands import demands, uniform
from mlxstories.ladder.bench.loss.objective import fit
from mlxstories.ladder.bench.material import train_epoch
from mlxstories.ladder.bench.model.answers import degrees, linear_pairs
from mlxstories.ladder.bench.model.chains import chained
from mlxstories.ladder.bench.model.inside import inside
from mlxstories.ladder.bench.model.modules import adapters, dropouts, second_tables
from mlxstories.ladder.registry import CHECKS

V, T, B, D = 17, 12, 4, 8


class Net(nn.Module):
    def __init__(self, middle: nn.Module | None = None):
        super().__init__()
        self.embed, self.head = nn.Embedding(V, D), nn.Linear(D, V)
        self.middle = nn.Identity() if middle is None else middle

    def __call__(self, tokens):
        return self.head(self.middle(self.embed(tokens)))


def rows(count: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, V, (count, T + 1))


def in_batches(table: np.ndarray, form=lambda w: (mx.array(w[:, :-1]), mx.array(w[:, 1:]))):
    return lambda seed: (form(table[i : i + B]) for i in range(0, len(table), B))


def bench(**fields) -> Bench:
    return Bench(Subject(**{"model": Net, "vocab_size": V, "train_batches": in_batches(rows()), **fields}))


def left_out(ignored: int):
    def loss(model, batch):
        keep = batch[1] != ignored
        nats = nn.losses.cross_entropy(model(batch[0]), mx.where(keep, batch[1], 0))
        return (nats * keep).sum() / keep.sum()

    return loss


def with_tail_of(filler: int):
    table = rows()
    table[:, -4:] = filler
    return in_batches(table, lambda w: (mx.array(np.maximum(w[:, :-1], 0)), mx.array(w[:, 1:])))


@pytest.mark.parametrize("ignored", [-100, -1, 0])
def test_ids_at_which_the_loss_looks_away_count_as_masked(ignored):
    asked = bench(train_batches=with_tail_of(ignored), loss=left_out(ignored))
    assert convention(asked) == Convention(ignored=ignored)
    batch = train_epoch(asked).batches[0]
    assert batch.mask.sum(1).tolist() == [T - 4] * B
    assert np.array(batch.user()[1])[:, -4:].tolist() == [[ignored] * 4] * B


def test_padding_that_the_loss_counts_stays_real():
    asked = bench(
        train_batches=with_tail_of(0), loss=lambda m, b: nn.losses.cross_entropy(m(b[0]), b[1]).mean()
    )
    assert convention(asked) == Convention()
    assert train_epoch(asked).batches[0].mask.all()


def test_labels_that_the_loss_shifts_are_read_as_targets_and_handed_back():
    given = in_batches(rows(), lambda w: (mx.array(w[:, :-1]), mx.array(w[:, :-1])))

    def loss(model, batch):
        return nn.losses.cross_entropy(model(batch[0])[:, :-1], batch[1][:, 1:]).mean()

    asked = bench(train_batches=given, loss=loss)
    assert convention(asked) == Convention(shifted=True)
    batch = train_epoch(asked).batches[0]
    assert (batch.targets[:, :-1] == batch.inputs[:, 1:]).all()
    assert batch.mask[:, :-1].all() and not batch.mask[:, -1].any()
    assert np.array_equal(np.array(batch.user()[1]), batch.inputs)
    not_shifted = bench(train_batches=given, loss=lambda m, b: nn.losses.cross_entropy(m(b[0]), b[1]).mean())
    assert convention(not_shifted) == Convention()


def as_rows(table: np.ndarray) -> list:
    return [read_batch((table[:, :-1], table[:, 1:]))]


def sliding(stream: np.ndarray, stride: int) -> np.ndarray:
    starts = np.arange(0, len(stream) - 49, stride)[:, None]
    return stream[starts + np.arange(49)]


def test_windows_that_slide_over_one_text_repeat_nothing():
    stream = np.random.default_rng(3).integers(0, 50, 1200)
    table = sliding(stream, 4)
    order = np.random.default_rng(4).permutation(len(table))
    shared, natural = window_overlap(as_rows(table[order[40:]]), as_rows(table[order[:40]]))
    assert shared > 0.9
    assert natural == 0
    apart, _ = window_overlap(as_rows(table[:150]), as_rows(table[-20:]))
    assert apart == 0


def test_a_text_told_twice_repeats():
    stream = np.random.default_rng(5).integers(0, 50, 586)  # the second time 10 places on in its row
    _, natural = window_overlap(
        as_rows(sliding(np.concatenate([stream, stream]), 48)), as_rows(sliding(stream, 48))
    )
    assert 0.2 < natural < 0.6


def test_neighbours_that_move_on_and_batches_that_come_again():
    stream = np.random.default_rng(6).integers(1, V, 200)
    moving = stream[np.arange(64)[:, None] + np.arange(T + 1)]
    found = neighbours(bench(train_batches=in_batches(moving)))
    assert (found.moved_on, found.by) == (1.0, 1)
    twice = np.repeat(rows(16).reshape(4, B, -1), 2, axis=0).reshape(32, -1)
    assert neighbours(bench(train_batches=in_batches(twice))).delivered_again == 0.5
    apart = neighbours(bench())
    assert apart.moved_on == apart.delivered_again == 0


def test_texts_that_no_epoch_reaches():
    letters = "abcdefghijklmnop"
    tokenizer = SimpleNamespace(
        encode=lambda text: [letters.index(c) + 1 for c in text],
        decode=lambda ids: "".join(letters[i - 1] for i in ids),
    )
    rng = np.random.default_rng(7)
    texts = ["".join(rng.choice(list(letters), T + 1)) for _ in range(40)]
    table = np.array([tokenizer.encode(text) for text in texts])
    told = {"tokenizer": tokenizer, "train_texts": texts}
    whole = coverage(bench(train_batches=in_batches(table), **told))
    tail = coverage(bench(train_batches=in_batches(table[36:]), **told))
    assert whole.both == whole.texts == 1
    assert (tail.first, tail.both, tail.texts) == (0.1, 0.1, 0.1)


@pytest.mark.parametrize(("masked", "known"), [(1, False), (0, True)])
def test_the_end_that_a_mask_leaves_out(masked, known):
    table = rows(16) % (V - 2) + 1
    table[:, 7], table[:, 8:] = V - 1, 0
    mask = (np.arange(T) < 7 - masked).astype(np.float32)[None].repeat(B, 0)
    given = in_batches(table, lambda w: Batch(mx.array(w[:, :-1]), mx.array(w[:, 1:]), mx.array(mask)))
    found = ends(bench(train_batches=given))
    assert found.fill == 0
    assert (V - 1 in found.real) is known
    assert found.first == (V - 1 if masked else 0)


def cross_entropy(model, batch):
    return nn.losses.cross_entropy(model(batch[0]), batch[1]).mean()


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


class Pair(nn.Module):
    def __init__(self, hidden: int, bent: bool):
        super().__init__()
        self.up, self.down, self.bent = nn.Linear(D, hidden), nn.Linear(hidden, D), bent

    def __call__(self, x):
        return self.down(nn.gelu(self.up(x)) if self.bent else self.up(x))


@pytest.mark.parametrize(("pair", "told"), [((32, False), True), ((32, True), False), ((4, False), False)])
def test_linear_layers_with_nothing_between_them(pair, told):
    assert linear_pairs(bench(model=lambda: Net(Pair(*pair)))) == (["middle"] if told else [])


class BentLast(Pair):
    def __call__(self, x):
        return nn.gelu(self.down(self.up(x)))


@pytest.mark.parametrize(("hidden", "told"), [(32, [("middle.up", "middle.down")]), (4, [])])
def test_an_activation_behind_two_linear_layers_leaves_them_one(hidden, told):
    assert linear_pairs(bench(model=lambda: Net(BentLast(hidden, False)))) == []
    assert chained(bench(model=lambda: Net(BentLast(hidden, False)))) == told
    assert chained(bench(model=lambda: Net(Pair(32, True)))) == []


class Norm(nn.Module):
    def __init__(self, divides: bool):
        super().__init__()
        self.weight, self.divides = mx.ones((D,)), divides

    def __call__(self, x):
        r = mx.rsqrt(x.square().mean(-1, keepdims=True) + 1e-9)
        return self.weight * (x / r if self.divides else x * r)


def test_the_power_of_a_norms_input():
    for divides, power in ((False, 0), (True, 2)):
        found = degrees(bench(model=lambda divides=divides: Net(Norm(divides))))
        assert found["middle"] == pytest.approx(power, abs=0.01)


class Attend(nn.Module):
    """Scores of known spread, beside a mask of minus infinity and a bias of the place, which count for nothing."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def __call__(self, x):
        t = x.shape[1]
        scores = self.factor * mx.random.normal((len(x), 2, t, t), key=mx.random.key(1))
        place = 100.0 * mx.arange(t)
        mask = mx.where(mx.tri(t) > 0, 0.0, -mx.inf)
        return x + mx.softmax(scores + place + mask, axis=-1).sum((1, 2))[:, :, None]


@pytest.mark.parametrize("factor", [0.5, 5.0])
def test_scores_are_read_where_they_are_seen(factor):
    before = mx.softmax
    found = inside(bench(model=lambda: Net(Attend(factor))))
    assert found.scores == pytest.approx(factor, rel=0.2)  # eight rows give a standard deviation
    assert mx.softmax is before


def test_what_can_be_read_from_a_fresh_model():
    assert dropouts(bench(model=lambda: Net(nn.Dropout(0.9)))) == {"middle": pytest.approx(0.9)}

    def tied():
        model = Net()
        model.head.weight = model.embed.weight
        return model

    assert second_tables(bench(model=tied)) == [("embed.weight", "head.weight")]
    assert second_tables(bench()) == []

    class Adapted(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(32, 32)
            self.lora_a, self.lora_b = mx.random.normal((32, 2)), mx.zeros((2, 32))

    def frozen():
        model = Net(Adapted())
        model.middle.linear.freeze()
        return model

    assert adapters(bench(model=lambda: Net(Adapted()))).where == "middle.linear.weight"
    assert adapters(bench(model=frozen)).where == ""
    assert adapters(bench()) is None


def test_a_batch_is_handed_back_as_it_was_read():
    read = read_batch((rows()[:, :-1], rows()[:, 1:]))
    for told in (Convention(), Convention(ignored=3), Convention(shifted=True)):
        batch = dataclasses.replace(read, convention=told)
        assert batch.user()[0].shape == read.inputs.shape
    assert math.isclose(float(read.by(Convention(ignored=3)).mask.sum()), float((rows()[:, 1:] != 3).sum()))
