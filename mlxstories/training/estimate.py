"""How long a training will take and how much memory it needs, measured on a few updates that are then undone."""

from __future__ import annotations

import math
import resource
import sys
import time
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map

from mlxstories.training.stream import Stream
from mlxstories.training.trainer import Trainer
from mlxstories.trees import by_path

WORTH_IT = 50  # updates; a shorter training is over before it is measured
_MOST = 64  # updates that are timed
_ENOUGH = 2.0  # seconds after which no further one is begun, once there are two
_FORWARD = 0.45  # of an update's time takes a validation of as many tokens: a third is the forward pass (Kaplan et al.
# 2020, section 2.1), the rest arranging the rows and scoring them
_SPREAD = 0.15  # by which a machine's speed varies at the least, up and down


@dataclass(frozen=True)
class Estimate:
    """What a training will take.

    Attributes:
        shortest, longest: seconds, evaluations included.
        memory: bytes held at the most up to and during an update, by the process as a whole.
        disk: bytes of the checkpoints that are kept.
    """

    shortest: float
    longest: float
    memory: int
    disk: int


def estimate(trainer: Trainer) -> Estimate:
    """Make a few updates of ``trainer`` and undo them: weights, moments and position are left as they were."""
    model, optimizer = trainer.model, trainer.optimizer
    kept = tree_map(lambda array: array, (model.parameters(), optimizer.state))
    stream = Stream(trainer.dataset.train, model.config.context, trainer.config)
    step = trainer.new_step()
    times: list[float] = []
    mx.reset_peak_memory()
    try:
        while len(times) < 3 or (len(times) <= _MOST and sum(times[1:]) < _ENOUGH):
            batches = [next(stream) for _ in range(trainer.phase.accumulation)]
            began = time.perf_counter()
            mx.eval(step(batches, 0), model.state, optimizer.state)
            times.append(time.perf_counter() - began)
        memory = max(mx.get_peak_memory(), _resident())
    finally:
        weights, optimizer.state = kept
        model.update(weights)
    updates = trainer.total_steps - trainer.progress.step
    tokens = trainer.dataset.train.targets / trainer.updates_per_epoch
    validations = math.ceil(updates / trainer.evaluate_every) + 1
    scored = validations * trainer.dataset.val.targets / tokens * _FORWARD
    compiling = (1 + _FORWARD) * times[0]  # of training step and validation: the first update is little else
    timed = np.array(times[1:])
    # The mean, since a busy machine makes a few updates far slower, and their share counts; twice its standard error.
    mean, error = timed.mean(), 2 * timed.std(ddof=1) / math.sqrt(len(timed))
    off = max(error, _SPREAD * mean)
    saved = sum(array.nbytes for array in by_path(kept).values() if isinstance(array, mx.array))
    return Estimate(
        compiling + (updates + scored) * max(mean - off, timed.min()),
        compiling + (updates + scored) * (mean + off),
        memory,
        saved * (trainer.config.keep + 1),
    )


def _resident() -> int:
    """The most bytes that the process has held, not counting the memory of a separate GPU."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
