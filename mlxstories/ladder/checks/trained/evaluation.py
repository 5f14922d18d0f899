"""What the checks of the subject's own validation share."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.evaluation.evaluation import (
    Reported,
    evaluated_twice,
    oracle_reported,
)
from mlxstories.ladder.limits import Gauges, Limit

CLOSE = Limit(2e-3, "of the value, or absolute below 1")
NOISE = Limit(1e-5, "of the value, or absolute below 1")


def near(value: float, other: float, limits: Gauges) -> bool:
    """Whether two figures are the same but for rounding; ``limits`` holds ``close``."""
    return limits.close.below(abs(value - other) / max(1.0, abs(other)))


def report(bench: Bench, limits: Gauges) -> Reported | None:
    """What can be held against our own figures; ``limits`` holds ``noise``. None where nothing can: the
    same model gives other figures each time."""
    stubbed = oracle_reported(bench)
    if stubbed is not None:
        return stubbed
    twice = evaluated_twice(bench)
    return None if limits.noise.above(twice.difference) else twice.first


def unsettled(found: Reported | None, figure: str) -> str:
    """Why a figure of validation cannot be compared."""
    return f"evaluate reports no {figure}" if found else "evaluating the same model twice differs"
