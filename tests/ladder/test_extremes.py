"""What is usual in every batch but one: batches without a target, pretrained weights, an optimiser that validation
touches."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest

from mlxstories.ladder import Subject
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.data.variety import neighbours
from mlxstories.ladder.bench.step.extremes import extremes
from mlxstories.ladder.bench.step.frozen import structure
from mlxstories.ladder.registry import CHECKS

V, T, B, D = 23, 12, 4, 16


class Plain(nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.embed, self.head = nn.Embedding(V, D), nn.Linear(D, V)
        self.head.weight = scale * self.head.weight

    def __call__(self, tokens):
        return self.head(self.embed(tokens))


def batches(widths=(T,) * 6, counts=lambda index: T):
    """Rows of these widths, of which so many cells count."""

    def made(seed):
        for index, width in enumerate(widths):
            rows = np.random.default_rng((seed, index)).integers(0, V, (B, width + 1))
            mask = np.broadcast_to(np.arange(width) < counts(index), (B, width))
            yield mx.array(rows[:, :-1]), mx.array(rows[:, 1:]), mx.array(mask * 1.0)

    return made


def mean(least):
    def loss(model, batch):
        nats = nn.losses.cross_entropy(model(batch[0]), batch[1])
        return (nats * batch[2]).sum() / mx.maximum(batch[2].sum(), least)

    return loss


def bench(**fields) -> Bench:
    return Bench(Subject(**{"model": Plain, "vocab_size": V, "train_batches": batches(), **fields}))


def told(name: str, on: Bench) -> list[tuple[str, str]]:
    check = CHECKS[name]
    with on.protected():
        return [(draft.code, draft.severity) for draft in check.ask(on, check.gauges()).drafts]


def one_empty(index):
    return 0 if index == 3 else T - index


@pytest.mark.parametrize(("least", "found"), [(0.0, [("not-finite", "error")]), (1.0, [])])
def test_a_batch_without_a_target_ends_a_training_that_divides_by_their_number(least, found):
    on = bench(loss=mean(least), train_batches=batches(counts=one_empty))
    assert told("unusual batches keep it finite", on) == found
    assert [(step.index, step.real) for step in extremes(on)] == [(0, B * T), (3, 0)]


def test_the_widest_and_the_narrowest_are_tried_and_batches_that_are_alike_are_not():
    on = bench(loss=mean(1.0), train_batches=batches(widths=(8, 12, 6, 10), counts=lambda index: 4))
    assert [step.shape for step in extremes(on)] == [(B, 12), (B, 6)]
    assert extremes(bench()) == []


def pretrained(rank, seeded):
    """Weights that stand for what was learnt: far from random numbers with a rank, of the same seed for ever."""

    def model():
        if seeded:
            mx.random.seed(5)
        made = Plain(40.0)
        for layer in (made.embed, made.head) if rank else ():
            left, right = mx.random.normal((V, rank)), mx.random.normal((rank, D))
            layer.weight = layer.weight + 3 * left @ right
        return made

    return model


@pytest.mark.parametrize(
    ("rank", "seeded", "accused"), [(2, True, False), (0, True, True), (2, False, True), (0, False, True)]
)
def test_what_a_pretrained_model_says_of_other_texts_is_no_matter_of_initial_weights(rank, seeded, accused):
    on = bench(model=pretrained(rank, seeded))
    assert told("first loss near ln V", on) == [("bad-initialization", "error")] * accused
    found = structure(on)
    assert (found is None) is not seeded
    assert found is None or (found > 1.3) is (rank > 0)


def touching(touch):
    """A subject that hands out one optimiser, which its validation knows."""
    optimizer = optim.Adam(1e-3)

    def evaluate(model, given):
        touch(optimizer, model)
        return {"loss": float(sum(mean(1.0)(model, batch) for batch in given))}

    return bench(loss=mean(1.0), optimizer=lambda: optimizer, evaluate=evaluate)


def slower(optimizer, model):
    optimizer.learning_rate = optimizer.learning_rate * 0.5


@pytest.mark.parametrize(
    ("touch", "accused"),
    [
        (lambda optimizer, model: optimizer.init(model.trainable_parameters()), False),
        (lambda optimizer, model: optimizer.state.update(step=mx.array(0, mx.uint64)), True),
        (lambda optimizer, model: optimizer.update(model, model.parameters()), True),
        (slower, False),
        (lambda optimizer, model: None, False),
    ],
)
def test_validation_leaves_the_optimiser_alone(touch, accused):
    found = told("validating and decoding change nothing", touching(touch))
    assert (("evaluation-changes-state", "warning") in found) is accused


@pytest.mark.parametrize(("stride", "share"), [(1, 1.0), (3, 1.0), (T, 0.0)])
def test_batches_that_are_the_one_before_moved_on(stride, share):
    stream = np.random.default_rng(0).integers(0, V, (B, 40 * T))

    def made(seed):
        for start in range(0, 8 * stride, stride):
            rows = stream[:, start : start + T + 1]
            yield mx.array(rows[:, :-1]), mx.array(rows[:, 1:])

    on = bench(train_batches=made)
    found = neighbours(on)
    assert (found.batch_moved_on, found.batch_by) == (share, stride if share else 0)
    assert told("neighbours differ", on) == [("constant-batches", "error")] * bool(share)


@pytest.mark.parametrize(("apart", "carried"), [(1, 1 - 1 / B), (B // 4, 0.75), (B, 0.0)])
def test_rows_that_the_next_batch_holds_too(apart, carried):
    rows = np.random.default_rng(0).integers(0, V, (8 * B, T + 1))

    def made(seed):
        for start in range(0, 7 * B + 1, apart):
            part = rows[start : start + B]
            yield mx.array(part[:, :-1]), mx.array(part[:, 1:])

    on = bench(train_batches=made)
    assert neighbours(on).carried_over == pytest.approx(carried)
    assert told("neighbours differ", on) == [("constant-batches", "error")] * bool(carried)


def test_rows_drawn_with_replacement_are_not_carried_over():
    rows, rng = np.random.default_rng(0).integers(0, V, (4 * B, T + 1)), np.random.default_rng(1)

    def made(seed):
        for _ in range(60):
            part = rows[rng.integers(0, len(rows), B)]
            yield mx.array(part[:, :-1]), mx.array(part[:, 1:])

    on = bench(train_batches=made)
    assert 0.1 < neighbours(on).carried_over < 0.4
    assert told("neighbours differ", on) == []


@pytest.mark.parametrize(("share", "accused"), [(1.0, True), (0.97, False)])
def test_targets_that_are_all_one_id(share, accused):
    def made(seed):
        rng = np.random.default_rng(seed)
        for _ in range(8):
            rows = np.where(rng.random((B, T + 1)) < share, 1, rng.integers(2, V, (B, T + 1)))
            rows[:, 0] = rng.integers(2, V, B)  # so that rows differ
            yield mx.array(rows[:, :-1]), mx.array(rows[:, 1:])

    assert told("batches differ", bench(train_batches=made)) == [("constant-batches", "error")] * accused
