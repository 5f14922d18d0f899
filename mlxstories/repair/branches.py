"""Short trial trainings from a point of a run, all on the same batches, to choose by measurement."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map

from mlxstories.optim import build_optimizer
from mlxstories.phases import Phase, override

if TYPE_CHECKING:
    from mlxstories.training import Progress, Trainer

_SWEEP = (1e-6, 10.0)  # rates of the range test
_SWEEP_UPDATES = 48
_HALF_DECADE = math.sqrt(10)
_HORIZON = 0.16
_HOPELESS = 1.0  # nats above its first loss: a branch is cut off


@dataclass(frozen=True)
class Snapshot:
    """A point of a run in memory.

    Attributes:
        progress: where it stands.
        weights: the model's parameters.
        moments: the optimiser's state, None at the start.
    """

    progress: Progress
    weights: Any
    moments: Any

    @classmethod
    def of(cls, trainer: Trainer) -> Snapshot:
        """MLX's arrays never change, so this holds references."""
        moments = _same(trainer.optimizer.state) if trainer.progress.step else None
        return cls(copy.deepcopy(trainer.progress), _same(trainer.model.parameters()), moments)

    def apply(self, trainer: Trainer, phase: Phase) -> None:
        """Set the trainer, its progress excepted, to this point, with ``phase`` as its recipe."""
        trainer.recast(phase)
        trainer.model.update(_same(self.weights))
        if self.moments is not None:
            trainer.optimizer.state = _same(self.moments)
        trainer.stream.seek(self.progress.epoch, self.progress.batch)


def _same(tree: Any) -> Any:
    return tree_map(lambda array: array, tree)


class Branches:
    """Trials with a trainer's model, which leave the trainer as it was.

    Attributes:
        spent: updates made in all trials so far.
    """

    def __init__(self, trainer: Trainer):
        self._trainer = trainer
        self.spent = 0

    @contextlib.contextmanager
    def trials(self) -> Iterator[None]:
        """Everything that a trial changes is set back at the end of the block."""
        trainer = self._trainer
        kept = (trainer.phase, trainer.learning_rate, trainer.optimizer, trainer.watch)
        weights, place = _same(trainer.model.parameters()), (trainer.stream.epoch, trainer.stream.batch)
        try:
            yield
        finally:
            trainer.phase, trainer.learning_rate, trainer.optimizer, trainer.watch = kept
            trainer.model.update(weights)
            trainer.stream.seek(*place)

    def length(self) -> int:
        """Updates that a trial needs to tell recipes apart."""
        return min(200, max(40, self._trainer.total_steps // 10), self._trainer.total_steps)

    def losses(self, start: Snapshot, phase: Phase, updates: int, rise: bool = False) -> np.ndarray:
        """Training loss of each update, nats per real token, before it is made; infinite from where it is not
        finite or hopeless. ``rise`` lets the rate grow from one end of the sweep to the other."""
        trainer = self._trainer
        start.apply(trainer, phase)
        if rise:
            low, high = _SWEEP
            growth = math.log(high / low) / (updates - 1)
            trainer.optimizer = build_optimizer(
                phase.optimizer, lambda step: low * mx.exp(growth * step.astype(mx.float32))
            )
            trainer.optimizer.init(trainer.model.trainable_parameters())
        step = trainer.new_step()
        trainer.model.train()
        losses = np.full(updates, np.inf)
        for index in range(updates):
            batches = [next(trainer.stream) for _ in range(phase.accumulation)]
            result = step(batches, trainer.config.seed * 2**32 + start.progress.step + index)
            self.spent += 1
            loss = float(result.nats) / max(1.0, float(result.tokens))
            if not math.isfinite(loss + float(result.grad_norm)) or loss > losses[0] + _HOPELESS:
                break
            losses[index] = loss
        return losses

    def spoilt_batches(self, start: Snapshot, phase: Phase, until: int) -> list[tuple[int, int]]:
        """Epoch and number of the microbatches up to update ``until`` whose loss or gradient is not finite at
        the weights of ``start``."""
        trainer = self._trainer
        start.apply(trainer, phase)
        step = trainer.new_step()
        found = []
        for _ in range((until - start.progress.step) * phase.accumulation):
            place = (trainer.stream.epoch, trainer.stream.batch)
            result = step([next(trainer.stream)], trainer.config.seed)
            self.spent += 1
            if not math.isfinite(float(result.nats) + float(result.grad_norm)):
                found.append(place)
            trainer.model.update(_same(start.weights))
        return found

    def best_rate(self, start: Snapshot, phase: Phase) -> tuple[float, float]:
        """A learning rate for the whole run from ``start``, and the mean loss at the end of the trial that chose it.

        A range test (Smith 2017, section 3.3), in which the rate rises exponentially until the loss does too,
        says where to look; trials at half decades around that say which; a parabola through the best three
        refines it. Long runs want lower rates: between whole runs the best one falls with the number of updates to
        the power of 0.32 (Bjorck et al. 2024). Half of that is taken, since a trial keeps its rate, where a run lets
        it decay and so bears a higher one.
        """
        swept = self.losses(start, phase, _SWEEP_UPDATES, rise=True)
        smooth = np.convolve(swept, np.ones(3) / 3, mode="valid")
        low, high = _SWEEP
        # the loss answers late to the rate, so its lowest point lies well above the best rate
        found = low * (high / low) ** (int(np.argmin(smooth)) / (_SWEEP_UPDATES - 1)) / 3
        scores: dict[int, float] = {}

        def score(place: int) -> float:
            if place not in scores:
                changed = override(phase, with_rate(phase, found * _HALF_DECADE**place))
                scores[place] = final_loss(self.losses(start, changed, self.length()))
            return scores[place]

        best = min((0, 1), key=score)
        direction = 1 if best == 1 else -1
        while score(best + direction) < score(best) and abs(best) < 8:
            best += direction
        score(best - direction)
        exponent = best + _vertex(score(best - 1), score(best), score(best + 1))
        horizon = (self.length() / self._trainer.total_steps) ** _HORIZON
        return float(f"{found * _HALF_DECADE**exponent * horizon:.2g}"), score(best)


def final_loss(losses: np.ndarray) -> float:
    """Mean over the last third of a trial."""
    return float(losses[-(len(losses) // 3) :].mean())


def with_rate(phase: Phase, rate: float) -> dict[str, float]:
    """The changes that set the peak rate; that of Muon's other parameters keeps its proportion."""
    changes = {"optimizer.learning_rate": rate}
    rest = phase.optimizer.rest_learning_rate
    if rest is not None:
        changes["optimizer.rest_learning_rate"] = rest * rate / phase.optimizer.learning_rate
    return changes


def _vertex(left: float, middle: float, right: float) -> float:
    """Where a parabola through three equidistant points, the middle one lowest, is lowest; in [-1/2, 1/2]."""
    curvature = left - 2 * middle + right
    if not math.isfinite(curvature) or curvature <= 0:
        return 0.0
    return min(0.5, max(-0.5, (left - right) / (2 * curvature)))
