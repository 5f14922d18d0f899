"""What shrinks the weights: decay in the step, or a penalty in the loss."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from mlxstories.ladder.bench.arrays import Arrays, put
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.samples import probe_batch
from mlxstories.ladder.bench.step.steps import watched_steps
from mlxstories.ladder.bench.training.rates import transformed
from mlxstories.ladder.bench.training.trial import Trial, score

GROWTH = 1.1


@dataclass(frozen=True)
class Decay:
    """Weight decay as the step does it.

    Attributes:
        share: of the weights that a step removes, at the peak of the schedule.
        follows_rate: whether it is less where the learning rate is less.
    """

    share: float
    follows_rate: bool


@measurement
def weight_decay(bench: Bench) -> Decay:
    """From the part of each watched update that shrinks the weights."""
    watched, schedule = watched_steps(bench), bench.schedule
    decays = np.array(watched.decays or [0.0])
    share = float(np.median(decays))
    rates = np.array([rate or 0.0 for rate in watched.update_rates])
    comparable = schedule.scheduled and len(rates) > 2 and rates.min() > 0 and share > 0
    if not comparable:
        return Decay(share, False)
    by_rate = decays / rates
    follows = bool(np.std(by_rate) / np.mean(by_rate) < np.std(decays) / np.mean(decays))
    return Decay(float(np.median(by_rate)) * schedule.peak if follows else share, follows)


@measurement
def undecayed_run(bench: Bench) -> Trial:
    """Memorising with the shrinking part of each update taken out."""
    decay, schedule = weight_decay(bench), bench.schedule
    shrinking = _weights(bench.model())

    def without(before, after, step):
        rate = 1.0
        if decay.follows_rate:
            rate = np.interp(step, schedule.steps, schedule.rates) / schedule.peak
        back = float(rate * decay.share)
        return {n: a + back * before[n] if n in shrinking and a.ndim else a for n, a in after.items()}

    return transformed(bench, without)


@dataclass(frozen=True)
class Penalty:
    """What a loss adds to the cross-entropy of an untrained model.

    Attributes:
        plain: on each of two batches.
        grown: on the same with all weights a tenth larger, their mean.
        squares: sum of the squared weights.
    """

    plain: tuple[float, float]
    grown: float
    squares: float

    @property
    def size(self) -> float:
        return float(np.mean(self.plain))

    @property
    def difference(self) -> float:
        """Between the two batches, over the size."""
        return abs(self.plain[0] - self.plain[1]) / max(abs(self.size), 1e-30)

    @property
    def misfit(self) -> float:
        """How far its growth with the weights is from that of their squares."""
        return abs(self.grown / self.size - GROWTH**2) if self.size else float("inf")


@measurement
def penalty(bench: Bench) -> Penalty:
    """Compare the subject's loss with the cross-entropy at two sizes of the weights."""
    model = bench.model()
    model.eval()
    plain = _beside_the_cross_entropy(bench, model)
    arrays = _weights(model)
    squares = sum(float((a.astype(mx.float32) ** 2).sum()) for a in arrays.values())
    put(model, {n: GROWTH * a for n, a in arrays.items()})
    grown = _beside_the_cross_entropy(bench, model)
    return Penalty(plain, float(np.mean(grown)), squares)


def _weights(model: nn.Module) -> Arrays:
    """What is trained: neither frozen nor a table of whole numbers."""
    trained = tree_flatten(model.trainable_parameters())
    return {name: array for name, array in trained if mx.issubdtype(array.dtype, mx.floating)}


def _beside_the_cross_entropy(bench: Bench, model: nn.Module) -> tuple[float, float]:
    batches = [probe_batch(bench, index) for index in range(2)]
    with bench.calling("loss"):
        first, second = (float(bench.loss(model, b)) - score(bench, model, b)[0] for b in batches)
    return first, second
