"""Small measurements that a sixth set of public reports asked for."""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from tiny import B, T, Tiny, batches, subject

from mlxstories.batch import Batch
from mlxstories.cli.deep import _explained
from mlxstories.findings import ERROR
from mlxstories.ladder import climb  # noqa: F401  (registers the checks)
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.material import sample
from mlxstories.ladder.bench.model.norms import norms
from mlxstories.ladder.exchange.inside_step import for_step
from mlxstories.ladder.registry import CHECKS


def judged(name: str, bench: Bench):
    """(code, severity) of what a check says."""
    with bench.protected():
        check = CHECKS[name]
        return [(draft.code, draft.severity) for draft in check.ask(bench, check.gauges()).drafts]


class Normed(Tiny):
    def __init__(self, gain, shift, norm=nn.LayerNorm):
        super().__init__()
        self.norm = norm(16)
        self.norm.weight = gain * mx.ones(16)
        if "bias" in self.norm:
            self.norm.bias = shift * mx.ones(16)

    def __call__(self, tokens):
        return self.head(self.norm(self.embed(tokens)))


@pytest.mark.parametrize(
    ("gain", "shift", "silent"), [(0.0, 1.0, True), (0.01, 1.0, True), (0.0, 0.0, False), (1.0, 1.0, False)]
)
def test_a_norm_that_gives_out_its_shift_alone_is_an_error(gain, shift, silent):
    bench = Bench(subject(model=lambda: Normed(gain, shift)))
    heard = norms(bench)["norm"]
    assert heard.varies == pytest.approx(gain, abs=0.05)  # of noise of a standard deviation of 1
    assert heard.constant == pytest.approx(shift, abs=0.2)
    said = judged("norms pass on what they are given", bench)
    assert said == ([("bad-initialization", "error")] if silent else [])


def test_a_norm_without_a_shift_is_not_asked():
    assert norms(Bench(subject(model=lambda: Normed(0.0, 0.0, nn.RMSNorm)))) == {}


def test_rows_of_one_token_come_last():
    def filled(seed):
        yield Batch(mx.full((B, T), 3), mx.full((B, T), 3), mx.ones((B, T)))
        yield from batches(seed, count=2)

    inputs = sample(Bench(subject(train_batches=filled))).inputs
    varied = (inputs != inputs[:, :1]).any(1)
    assert not varied.all()
    assert varied.tolist() == sorted(varied.tolist(), reverse=True)


class Falling(optim.AdamW):
    """Multiplies its rate after each update."""

    def __init__(self, by):
        super().__init__(1e-2, bias_correction=True)
        self.by = by


def step(model, optimizer, batch):
    loss, gradients = nn.value_and_grad(
        model, lambda m: nn.losses.cross_entropy(m(batch.inputs), batch.targets).mean()
    )(model)
    optimizer.update(model, gradients)
    optimizer.learning_rate = optimizer.learning_rate * optimizer.by
    return loss


@pytest.mark.parametrize(
    ("by", "updates", "said"),
    [(0.97, None, [("schedule-out-of-step", "warning")]), (0.97, 120, []), (1.0, None, [])],
)
def test_a_rate_that_is_lowered_by_hand_while_the_loss_falls_is_a_warning(by, updates, said):
    setup = subject(optimizer=lambda: Falling(by), train_step=step, updates=updates)
    assert judged("the rate holds while the loss falls", Bench(setup)) == said


def test_a_rate_that_the_step_lowers_can_be_held():
    setup = subject(optimizer=lambda: Falling(0.5), train_step=step)
    bench = Bench(setup)
    names = [change.name for change in for_step(bench)]
    change = next(c for c in for_step(bench, lowered=True) if c.name == "the rate constant at its peak")
    assert change.name not in names
    model, optimizer = Tiny(), setup.optimizer()
    change.optimizer(optimizer)
    moved = []
    for batch in batches(0, count=4):
        before = np.array(model.head.weight)
        step(model, optimizer, batch)
        moved.append(float(np.abs(np.array(model.head.weight) - before).max()))
    assert min(moved) > 0.5 * max(moved)  # where each would be half of the one before


class Counting:
    def __init__(self, reset):
        self.reset, self.losses = reset, []

    def __call__(self, model, given):
        model.eval()
        losses = [nn.losses.cross_entropy(model(b.inputs), b.targets).mean().item() for b in given]
        self.losses = losses if self.reset else self.losses + losses
        model.train()
        return {"loss": sum(self.losses) / len(self.losses)}


@pytest.mark.parametrize("reset", [True, False])
def test_validation_that_remembers_is_no_dropout(reset):
    bench = Bench(subject(evaluate=Counting(reset), val_batches=lambda: batches(9, count=2)))
    assert judged("validation is repeatable", bench) == ([] if reset else [("metric-mismatch", "error")])


@pytest.mark.parametrize(
    ("codes", "explained"),
    [
        ([], False),
        (["cannot-overfit"], False),
        (["cannot-overfit", "wrong-loss"], True),
        (["wrong-loss"], True),
    ],
)
def test_what_only_comes_of_a_mistake_explains_nothing(codes, explained):
    found = [SimpleNamespace(code=code, severity=ERROR) for code in codes]
    assert _explained(SimpleNamespace(findings=found)) == explained
