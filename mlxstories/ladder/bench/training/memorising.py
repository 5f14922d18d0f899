"""A handful of stories, which any working setup memorises."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.samples import minimal_batch
from mlxstories.ladder.bench.training.trial import Trial, score, train
from mlxstories.trees import by_path

LEFT = 0.5
"""Share of the first loss that is left where stories are memorised."""
ACCURATE = 0.6
"""Of the tokens right: with this many, less of the loss need be gone."""
_LEFT_IF_ACCURATE = 0.65

_AT = (1, 2, 3, 5, 10, 15, 20, 30, 40, 50, 60, 80, 100, 120)
_HEAVY = 500_000  # logits and weights: about a hundredth of a second a step
_SLOW = 1_000_000_000  # weights times tokens: a few tenths of a second a step


@dataclass(frozen=True)
class Memorising:
    """The subject's own training on the minimal batch.

    Attributes:
        trial: as it went.
        start: loss and accuracy of the untrained model.
        learned: whether at any point it did what a working setup does.
    """

    trial: Trial
    start: tuple[float, float]
    learned: bool

    @property
    def points(self) -> list[tuple[int, float, float]]:
        """(updates, loss, accuracy), the untrained model first."""
        return [(0, *self.start), *self.trial.points]

    @property
    def best(self) -> tuple[int, float, float]:
        """The point of the least loss."""
        return min(self.points, key=lambda point: point[1] if math.isfinite(point[1]) else math.inf)

    @property
    def last(self) -> float:
        """The loss at the end, infinite where there is none."""
        return self.trial.points[-1][1] if self.trial.points else math.inf


@measurement
def memorising(bench: Bench) -> Memorising:
    """Let the subject's step memorise the minimal batch."""
    batch = minimal_batch(bench)
    start = first_score(bench)
    steps = memorising_steps(bench)
    trial = train(bench, [batch], steps, measure=batch, at=[n for n in _AT if n <= steps])
    return Memorising(trial, start, memorised(bench, trial))


@measurement
def first_score(bench: Bench) -> tuple[float, float]:
    """Loss and accuracy of the untrained model on the minimal batch."""
    return score(bench, bench.model(), minimal_batch(bench))


@measurement
def step_work(bench: Bench) -> tuple[int, int]:
    """Work of a step on the minimal batch, counted and never timed: the number of logits and weights, and of weights
    times tokens."""
    weights = sum(array.size for array in by_path(bench.model().parameters()).values())
    cells = minimal_batch(bench).inputs.size
    return cells * bench.subject.vocab_size + weights, cells * weights


def slow(bench: Bench) -> bool:
    """Whether steps are so slow that fewer of them must do."""
    return step_work(bench)[1] > _SLOW


def memorising_steps(bench: Bench) -> int:
    """Number of steps, by sizes alone, so that neither the machine nor its load changes a verdict."""
    if bench.brief or slow(bench):
        return 40
    return 60 if step_work(bench)[0] > _HEAVY else 100


def start_loss(bench: Bench) -> float:
    """The loss from which learning is counted: the first one, or ln V where that is less."""
    return min(first_score(bench)[0], math.log(bench.subject.vocab_size))


def memorised(bench: Bench, trial: Trial) -> bool:
    """Whether a run on the minimal batch did, at any of its points, what a working setup does."""
    if not trial.finite:
        return False
    start = start_loss(bench)
    return any(_learned(loss / start, accuracy) for _, loss, accuracy in trial.points)


def _learned(left: float, accuracy: float) -> bool:
    return left < LEFT or (accuracy > ACCURATE and left < _LEFT_IF_ACCURATE)


def row_entropy(bench: Bench) -> float:
    """Unigram entropy of the minimal batch's own targets: what word frequencies alone reach."""
    shares = _shares(bench)
    return float(-(shares * np.log(shares)).sum())


def row_share(bench: Bench) -> float:
    """The accuracy of always guessing the commonest target of the minimal batch."""
    return float(_shares(bench).max())


def _shares(bench: Bench) -> np.ndarray:
    batch = minimal_batch(bench)
    _, counts = np.unique(batch.targets[batch.mask > 0], return_counts=True)
    return counts / counts.sum()
