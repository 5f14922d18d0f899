"""Clipping, and a norm that is clipped after matrices were orthogonalised."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_map

from mlxstories.ladder import Subject
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.step.clipping import Clip, clipping, full_size_run, orthogonal_size
from mlxstories.ladder.bench.training.rates import RateSweep, rate_sweep
from mlxstories.ladder.registry import CHECKS

V, T, B, D = 17, 12, 4, 8


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.middle, self.head = nn.Embedding(V, D), nn.Linear(D, 2 * D), nn.Linear(2 * D, V)

    def __call__(self, tokens):
        return self.head(nn.gelu(self.middle(self.embed(tokens))))


def batches(seed):
    table = np.random.default_rng(seed).integers(0, V, (4 * B, T + 1))
    return ((mx.array(w[:, :-1]), mx.array(w[:, 1:])) for w in np.split(table, 4))


def orthogonal(gradient):
    """U V^T, by NumPy."""
    if gradient.ndim != 2:
        return gradient
    u, _, v = np.linalg.svd(np.array(gradient), full_matrices=False)
    return mx.array(u @ v)


def bench(*changes) -> Bench:
    """A step whose gradients go through these, one after the other."""

    def step(model, optimizer, batch):
        def loss(m):
            return nn.losses.cross_entropy(m(batch[0]), batch[1]).mean()

        value, gradients = nn.value_and_grad(model, loss)(model)
        for change in changes:
            gradients = change(gradients)
        optimizer.update(model, gradients)
        return value

    fields = {"model": Plain, "vocab_size": V, "train_batches": batches}
    return Bench(Subject(**fields, optimizer=lambda: optim.SGD(0.1), train_step=step))


def all_orthogonal(gradients):
    return tree_map(orthogonal, gradients)


def clip(limit):
    return lambda gradients: optim.clip_grad_norm(gradients, limit)[0]


def test_the_size_of_what_is_orthogonal():
    assert orthogonal_size(bench(all_orthogonal)) == pytest.approx(1, abs=1e-3)
    assert orthogonal_size(bench()) is None
    assert orthogonal_size(bench(clip(0.1))) is None


def test_a_clip_after_it_divides_by_the_norm_which_is_a_matter_of_shapes():
    on = bench(all_orthogonal, clip(0.5))
    ranks = D + D + 2 * D  # of the three matrices; the biases add little
    assert orthogonal_size(on) == pytest.approx(0.5 / ranks**0.5, rel=0.05)
    assert clipping(on).limit == pytest.approx(0.5, rel=1e-3)
    assert orthogonal_size(bench(clip(0.5), all_orthogonal)) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("kind", "size", "accuracy", "warned"),
    [
        ("norm", 0.04, 0.95, True),
        ("norm", 0.04, 0.55, False),  # full size does no better
        ("norm", 0.5, 0.95, False),
        ("norm", None, 0.95, False),
        ("value", 0.04, 0.95, False),
    ],
)
def test_it_is_told_where_steps_of_full_size_learn_more(kind, size, accuracy, warned):
    on, check = bench(), CHECKS["clipping"]
    sweep = RateSweep({1.0: (2.0, 0.5)}, 20, 4.0)
    on.taken |= {clipping: Clip(kind, 1.0, 0.5), orthogonal_size: size, rate_sweep: sweep}
    on.taken[full_size_run] = (1.0, accuracy)
    verdict = check.ask(on, check.gauges())
    assert verdict.status == "passed"
    assert [(d.code, d.severity) for d in verdict.drafts] == [("clipping-too-tight", "warning")] * warned
