"""What the curves of a run say early on: that it explodes, or that it does not learn."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlxstories.data.packing import Documents
from mlxstories.findings.limits import WORSE_THAN_GUESSING

_COUNTED = 1 << 20  # tokens
_AWAKE = 20  # updates at the full rate after which a loss that has not moved is stuck
_LEARNT = 80  # such updates, and a tenth of the run, after which word frequencies are known
_MOVED = 0.97  # of the first loss
_FREQUENCIES = 0.9  # of the entropy of the words: below it more than frequencies has been learnt
_EARLY = 0.5  # of the run: later it would cost too much to start again
_STILL_FALLING = 0.03  # share of the loss lost from one quarter of the updates to the next
_SPIKE = 1.5  # nats above the best loss so far, twice in a row


@dataclass(frozen=True)
class Sign:
    """What is wrong: ``kind`` is "exploded" (it got worse) or "stuck" (it does not get better); one clause."""

    kind: str
    message: str


def word_entropy(documents: Documents) -> float:
    """Entropy of the words' frequencies in nats per token: the loss of a model that knows nothing else. Of a large
    corpus the first stories are counted; the end of a story is a word too."""
    stories = min(len(documents), max(1, int(np.searchsorted(documents.offsets, _COUNTED))))
    counts = np.append(np.bincount(documents.tokens[: documents.offsets[stories]]), stories)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


class Signs:
    """Reads a run's metrics, one line at a time.

    Rates differ in their warmup, so progress is counted in updates at the full rate: n updates at half the peak
    are n / 2 of them.

    Args:
        rate: the learning rate of each update, float [total].
        guess: ln V, the loss of guessing.
        words: see `word_entropy`; None where frequencies say little of the loss, as with masked tokens.
    """

    def __init__(self, rate: np.ndarray, guess: float, words: float | None):
        self._full = np.cumsum(rate) / rate.max()
        self._start, self._words = guess, words
        self.steps: list[int] = []
        self.losses: list[float] = []

    def awake(self, step: int) -> float:
        """Updates at the full rate up to ``step``."""
        return float(self._full[step - 1])

    @property
    def learning(self) -> bool:
        """Whether the model knows more than the frequencies of the words, or than nothing where ``words`` is None."""
        bound = _MOVED * self._start if self._words is None else _FREQUENCIES * self._words
        return min(self.losses, default=math.inf) < bound

    @property
    def at_best(self) -> bool:
        """Whether the last loss is about the lowest so far."""
        return self.losses[-1] <= 1.02 * min(self.losses)

    def __call__(self, record: dict) -> Sign | None:
        """Take a line of metrics."""
        if record["split"] == "val" and record["step"] == 0:
            self._start = max(self._start, record["loss"])
        if record["split"] != "train":
            return None
        step, loss = record["step"], record["loss"]
        self.steps.append(step)
        self.losses.append(loss)
        return self._exploded(step, loss) or self._stuck(step, loss)

    def _exploded(self, step: int, loss: float) -> Sign | None:
        if WORSE_THAN_GUESSING.above(loss - self._start):
            return Sign("exploded", f"the loss is {loss:.2f}, worse than at the start ({self._start:.2f})")
        best = min(self.losses)
        if min(self.losses[-2:]) > best + _SPIKE:
            return Sign("exploded", f"the loss is {loss:.2f}, after {best:.2f} before")
        return None

    def _stuck(self, step: int, loss: float) -> Sign | None:
        full = self.awake(step)
        if full < _AWAKE or step > _EARLY * len(self._full):
            return None
        if min(self.losses) > _MOVED * self._start:
            return Sign("stuck", f"the loss, {loss:.2f}, has hardly left its start ({self._start:.2f})")
        late = self._mean(0.75, 1)
        if self._words is None or full < _LEARNT or step < 0.1 * len(self._full):
            return None
        if not late > _FREQUENCIES * self._words:  # nor where there is no line yet, and the mean is NaN
            return None
        if loss > self._words:
            return Sign(
                "stuck", f"the loss, {loss:.2f}, is above that of word frequencies alone ({self._words:.2f})"
            )
        if late > (1 - _STILL_FALLING) * self._mean(0.5, 0.75):
            return Sign(
                "stuck",
                f"the loss, {loss:.2f}, stands still near that of word frequencies ({self._words:.2f})",
            )
        return None

    def beside(self, trial: np.ndarray) -> tuple[float, float]:
        """Mean loss of the run's lines in the later half of a trial, and of the trial over the same updates; of a run
        without such lines, its last one, and the later half of the trial.

        Args:
            trial: loss of each update from the first on, nats per real token.
        """
        end = min(len(trial), self.steps[-1])
        lines = [place for place, step in enumerate(self.steps) if end / 2 < step <= end]
        if not lines:
            return self.losses[-1], float(trial[len(trial) // 2 :].mean())
        begins = [0, *self.steps]
        updates = [self.steps[place] - begins[place] for place in lines]
        own = float(np.average([self.losses[place] for place in lines], weights=updates))
        return own, float(trial[begins[lines[0]] : self.steps[lines[-1]]].mean())

    def _mean(self, begin: float, end: float) -> float:
        """Mean loss over a part of the updates so far; NaN without a line there."""
        last, lines = self.steps[-1], zip(self.steps, self.losses, strict=True)
        chosen = [loss for step, loss in lines if begin * last < step <= end * last]
        return sum(chosen) / len(chosen) if chosen else math.nan


def rates(schedule: Callable[[mx.array], mx.array], total: int) -> np.ndarray:
    """The learning rate of each of ``total`` updates."""
    return np.array(schedule(mx.arange(total)), dtype=np.float64)
