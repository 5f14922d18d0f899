"""Whether the step's loss, validation and decoding follow the weights of the model that they are given."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.ladder.bench.arrays import Arrays, put
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.generation.decoding import choice, generated
from mlxstories.ladder.bench.samples import probe_batch
from mlxstories.ladder.bench.step.received_gradient import watched_step
from mlxstories.ladder.bench.subject_fault import SubjectFault
from mlxstories.ladder.bench.training.trial import score
from mlxstories.trees import by_path

_STEPS = 3
_IDS = 4  # that are decoded
_PROMPT = 6


@dataclass(frozen=True)
class Following:
    """Figures of one model object before and after its weights were changed.

    Attributes:
        before, after: as the subject's code told them.
        own_before, own_after: our own loss of the same weights.
        elsewhere: what the same code says of another object with other weights; None where there is none.
        same_gradient: whether the optimiser got the same gradient, to the last digit, before and after.
    """

    before: float
    after: float
    own_before: float
    own_after: float
    elsewhere: float | None
    same_gradient: bool = False

    @property
    def moved(self) -> float:
        """Relative change of what the subject's code told."""
        return abs(self.after - self.before) / max(abs(self.before), 1e-30)

    @property
    def own_moved(self) -> float:
        return abs(self.own_after - self.own_before) / max(abs(self.own_before), 1e-30)


def _noisy_weights(bench: Bench, model: nn.Module) -> dict[str, mx.array]:
    """Noisy weights for ``model``, whose own stay as they are."""
    kept = by_path(model.parameters())
    other = by_path(bench.noisy(13).parameters())
    put(model, kept)  # the noise went onto this object where it is the only one
    return other


@measurement
def step_follows(bench: Bench) -> Following:
    """The loss that the step returns, twice on one batch, with other weights the second time; dropout off."""
    batch = probe_batch(bench, 0)
    model, optimizer = bench.model(), bench.optimizer()
    first = by_path(model.parameters())
    other = _noisy_weights(bench, model)
    returned, own, received = [], [], []
    for weights in (first, other):
        put(model, weights)
        model.eval()
        own.append(score(bench, model, batch)[0])
        bench.seed_all(1)
        loss, gradient = watched_step(bench, model, optimizer, batch)
        returned.append(loss)
        received.append(gradient)
    elsewhere = None
    if not bench.hands_out_one_model:
        fresh = bench.model(bench.seed + 1)
        fresh.eval()
        bench.seed_all(1)
        elsewhere = bench.step(fresh, bench.optimizer(), batch)
    return Following(*returned, *own, elsewhere, _same(*received))


def _same(one: Arrays, other: Arrays) -> bool:
    return (
        bool(one) and one.keys() == other.keys() and all(mx.array_equal(a, other[n]) for n, a in one.items())
    )


@measurement
def evaluation_follows(bench: Bench) -> Following | None:
    """The loss of ``evaluate``, with other weights the second time, and after steps too: averages of weights follow
    only those. None where it tells no loss."""
    batch = probe_batch(bench, 0)
    model, optimizer = bench.model(), bench.optimizer()
    other = _noisy_weights(bench, model)
    told, own = [], []
    for turn in range(3):
        if turn == 1:
            put(model, other)
        for call in range(_STEPS if turn == 2 else 0):
            model.train()
            bench.step(model, optimizer, probe_batch(bench, call))
        loss = _evaluated(bench, model, batch)
        if loss is None:
            return None
        told.append(loss)
        own.append(score(bench, model, batch)[0])
    after = max(told[1:], key=lambda value: abs(value - told[0]))
    return Following(told[0], after, own[0], own[1], None)


def _evaluated(bench: Bench, model: nn.Module, batch) -> float | None:
    try:
        with bench.calling("evaluate"):
            bench.seed_all(1)
            return float(dict(bench.subject.evaluate(model, [batch.user()]))["loss"])
    except (SubjectFault, KeyError):
        return None


@dataclass(frozen=True)
class Decoded:
    """Greedy ids of one model object before and after its weights were changed, and our own first choices."""

    before: list[int]
    after: list[int]
    own_before: int
    own_after: int


@measurement
def decoding_follows(bench: Bench) -> Decoded | None:
    """``generate`` with a model's weights and then with those that choose another first id."""
    prompt = [int(i) for i in np.maximum(probe_batch(bench, 0).inputs[0, :_PROMPT], 0)]
    model = bench.noisy(14, 4.0)
    first, others = by_path(model.parameters()), []
    for seed in range(15, 19):
        others.append(by_path(bench.noisy(seed, 4.0).parameters()))
    put(model, first)
    before, chosen = _decoded(bench, model, prompt), choice(bench, model, prompt)
    for weights in others:
        put(model, weights)
        if choice(bench, model, prompt) != chosen:
            after = _decoded(bench, model, prompt)
            return (
                None
                if before is None or after is None
                else Decoded(before, after, chosen, choice(bench, model, prompt))
            )
    return None


def _decoded(bench: Bench, model: nn.Module, prompt: list[int]) -> list[int] | None:
    try:
        return generated(bench, model, prompt, _IDS, bench.seed)
    except SubjectFault:
        return None
