"""Short trial trainings from a point of a run, all on the same batches, to choose by measurement."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map

from mlxstories.findings.limits import WORSE_THAN_GUESSING
from mlxstories.optim import build_optimizer
from mlxstories.training.phases import Phase, override, with_rate

if TYPE_CHECKING:
    from mlxstories.training.progress import Progress
    from mlxstories.training.trainer import Trainer

TRIAL = 40  # updates that tell recipes apart
_LONG_TRIAL = 100  # updates that tell rates an octave apart
_TRIAL_SCHEDULE = {"schedule.name": "linear_warmup", "schedule.warmup": 15}  # alike for runs of any length
_EQUAL_RUN = 300  # updates of the whole run that wants the rate of a long trial
_HORIZON = 0.32
_SWEEP = (1e-6, 10.0)  # rates of the range test
_SWEEP_UPDATES = 48


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


@dataclass
class Trial:
    """A short training beside the run, which can go on where it stopped.

    Attributes:
        at: where it stands.
        phase: its recipe.
        losses: training loss of each update, nats per real token, before it was made; infinite from where it was
            not finite or hopeless.
    """

    at: Snapshot
    phase: Phase
    losses: np.ndarray = field(default_factory=lambda: np.empty(0))


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

    def losses(self, start: Snapshot, phase: Phase, updates: int) -> np.ndarray:
        """Those of a `Trial` of so many updates."""
        trial = Trial(start, phase)
        self.extend(trial, updates)
        return trial.losses

    def extend(self, trial: Trial, updates: int) -> None:
        """Train on until the trial has so many updates."""
        trainer, at, first = self._trainer, trial.at, len(trial.losses)
        losses = np.append(trial.losses, np.full(max(0, updates - first), np.inf))
        if first < len(losses) and np.isfinite(trial.losses).all():
            at.apply(trainer, trial.phase)
            self._train(losses, first, at.progress.step - first, trial.phase)
            progress = dataclasses.replace(
                at.progress,
                step=at.progress.step + len(losses) - first,
                epoch=trainer.stream.epoch,
                batch=trainer.stream.batch,
            )
            trial.at = Snapshot(progress, _same(trainer.model.parameters()), _same(trainer.optimizer.state))
        trial.losses = losses

    def _train(self, losses: np.ndarray, first: int, start: int, phase: Phase) -> None:
        """Fill in the losses of a trial that began at step ``start``, from number ``first`` on, as long as there is
        hope."""
        trainer = self._trainer
        step = trainer.new_step()
        trainer.model.train()
        for index in range(first, len(losses)):
            batches = [next(trainer.stream) for _ in range(phase.accumulation)]
            result = step(batches, trainer.config.seed * 2**32 + start + index)
            self.spent += 1
            loss = float(result.nats) / max(1.0, float(result.tokens))
            hopeless = WORSE_THAN_GUESSING.above(loss - losses[0])
            if hopeless or not math.isfinite(loss + float(result.grad_norm)):
                break
            losses[index] = loss

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

    def best_rate(self, start: Snapshot, phase: Phase) -> tuple[float, np.ndarray]:
        """A learning rate for the whole run from ``start``, and the losses of the best trial.

        A range test (Smith 2017, section 3.3), in which the rate rises exponentially until the loss does too,
        says where to look; short trials an octave apart say which is best; it and its neighbours are tried for
        longer, and a parabola through them says the rate. Trials hold the peak rate; longer runs want lower ones,
        by the number of updates to the power of 0.32 (Bjorck et al. 2024).
        """
        tried = override(phase, _TRIAL_SCHEDULE)
        found = self._range_test(start, phase)
        trials: dict[int, Trial] = {}

        def score(place: int, updates: int = TRIAL) -> float:
            if place not in trials:
                trials[place] = Trial(start, override(tried, with_rate(phase, found * 2.0**place)))
            self.extend(trials[place], updates)
            return final_loss(trials[place].losses)

        best = min((0, 1), key=score)
        direction = 1 if best == 1 else -1
        while score(best + direction) < score(best) and abs(best) < 16:
            best += direction
        near = (best - 1, best, best + 1)
        scores = [score(place, _LONG_TRIAL) for place in near]
        horizon = min(1.0, _EQUAL_RUN / self._trainer.total_steps) ** _HORIZON
        rate = horizon * found * 2.0 ** (best + _lowest(*scores))
        return rate, trials[near[int(np.argmin(scores))]].losses

    def _range_test(self, start: Snapshot, phase: Phase) -> float:
        """A learning rate near the best one."""
        low, high = _SWEEP
        growth = math.log(high / low) / (_SWEEP_UPDATES - 1)
        start.apply(self._trainer, phase)
        self._trainer.optimizer = build_optimizer(
            phase.optimizer, lambda step: low * mx.exp(growth * step.astype(mx.float32))
        )
        self._trainer.optimizer.init(self._trainer.model.trainable_parameters())
        losses = np.full(_SWEEP_UPDATES, np.inf)
        self._train(losses, 0, start.progress.step, phase)
        smooth = np.convolve(losses, np.ones(3) / 3, mode="valid")
        # the loss answers late to the rate, so its lowest point lies well above the best rate
        return low * math.exp(growth * int(np.argmin(smooth))) / 3


def final_loss(losses: np.ndarray) -> float:
    """Mean over the last third of a trial."""
    return float(losses[-(len(losses) // 3) :].mean())


def _lowest(left: float, middle: float, right: float) -> float:
    """Where in [-1, 1] a parabola through the values at -1, 0 and 1 is lowest."""
    ends = left - right
    curvature = left - 2 * middle + right
    if not math.isfinite(curvature):
        return 0.0
    if curvature <= 0:
        return math.copysign(1.0, ends)
    return min(1.0, max(-1.0, ends / (2 * curvature)))
