"""The subject memorises a few stories."""

from __future__ import annotations

from dataclasses import dataclass

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.trial import Trial


@dataclass(frozen=True)
class Memorising:
    """A training on the minimal batch; (loss, accuracy) before it, and whether it did what a working setup does."""

    trial: Trial
    start: tuple[float, float]
    learned: bool
    step_seconds: float


@measurement
def memorising(bench: Bench) -> Memorising:  # TRANSITIONAL
    """What the old rung measured."""
    return Memorising(*(bench.facts[name] for name in ("minimal", "start", "memorised", "step_seconds")))
