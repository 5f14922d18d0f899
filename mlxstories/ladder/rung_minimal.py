"""Rung 3: a handful of stories, which any working setup memorises."""

from __future__ import annotations

import math
import time

import numpy as np
from mlx.utils import tree_flatten

from mlxstories.ladder import updates
from mlxstories.ladder.bench.memorising import memorising
from mlxstories.ladder.examination import Examination, Run

_LADDER = (1, 2, 3, 5, 10, 15, 20, 30, 40, 50, 60, 80, 100, 120)
_LEARNED = 0.5  # share of the first loss that memorising must take away, or
_ACCURATE = 0.6  # of the tokens that must be right


def climb(exam: Examination) -> None:
    """Judge the subject's step on a few calls, then let it memorise the minimal batch."""
    updates.examine(exam)
    if exam.has("no-update", "not-finite"):
        return
    steps = plan(exam)
    batch = exam.minimal
    at = [n for n in _LADDER if n <= steps]
    run = exam.run([batch], steps, measure=batch, at=at)
    exam.facts["minimal"] = run
    before = exam.score(exam.model(), batch)
    exam.facts["start"] = before
    points = [(0, *before), *run.points]
    exam.rung.figures["overfit"] = {"points": points, "rows": batch.shape[0], "steps": steps}
    learned = memorised(exam, run)
    last = points[-1]
    detail = f"{last[2]:.1%} of the tokens, {last[1]:.2f} nats after {last[0]} steps on {batch.shape[0]} rows"
    exam.check("memorises a few stories", learned, detail)
    exam.facts["memorised"] = learned
    memorising(exam)


def plan(exam: Examination) -> int:
    """Steps for the minimal rung: by the sizes at hand, so that the machine's load changes no verdict; by the
    clock only where a step is so slow that the whole climb would take minutes."""
    model, optimizer, batch = exam.model(), exam.optimizer(), exam.minimal
    weights = sum(array.size for _, array in tree_flatten(model.parameters()))
    heavy = batch.inputs.size * exam.subject.vocab_size + weights > 500_000
    exam.step(model, optimizer, batch)
    costs = []
    for _ in range(2):
        begin = time.perf_counter()
        exam.step(model, optimizer, batch)
        costs.append(time.perf_counter() - begin)
    exam.facts["step_seconds"] = min(costs)
    if exam.has() or min(costs) > 0.3:  # with a cause in hand this only shows its consequences
        return 40
    return 60 if heavy else 100


def start_loss(exam: Examination) -> float:
    """The loss from which learning is counted: the first one, or ln V where that is less."""
    return min(exam.facts["start"][0], math.log(exam.subject.vocab_size))


def memorised(exam: Examination, run: Run) -> bool:
    """Whether a run on the minimal batch did what a working setup does."""
    if not run.finite or not run.points:
        return False
    _, loss, accuracy = run.points[-1]
    left = loss / start_loss(exam)
    return left < 1 - _LEARNED or (accuracy > _ACCURATE and left < 0.65)


def row_entropy(exam: Examination) -> float:
    """Unigram entropy of the minimal batch's own targets: what word frequencies alone reach."""
    shares = _shares(exam)
    return float(-(shares * np.log(shares)).sum())


def row_share(exam: Examination) -> float:
    """The accuracy of always guessing the commonest target of the minimal batch."""
    return float(_shares(exam).max())


def _shares(exam: Examination) -> np.ndarray:
    batch = exam.minimal
    _, counts = np.unique(batch.targets[batch.mask > 0], return_counts=True)
    return counts / counts.sum()
