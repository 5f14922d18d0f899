"""Learning rates around the subject's own."""

from __future__ import annotations

from dataclasses import dataclass

from mlxstories.ladder.bench.bench import Bench, measurement


@dataclass(frozen=True)
class RateSweep:
    """(loss, accuracy) after ``steps`` updates on the minimal batch, by the factor on the rate."""

    by_scale: dict[float, tuple[float, float]]
    steps: int


@measurement
def rate_sweep(bench: Bench) -> RateSweep:  # TRANSITIONAL
    """What the old rung measured."""
    return RateSweep(bench.facts.get("sweep", {}), bench.facts.get("sweep_steps", 0))
