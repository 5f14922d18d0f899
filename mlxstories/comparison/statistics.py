"""Means, paired differences and what can be said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special  # not scipy.stats, which takes seconds to import

LEVEL = 0.95
_POWER = 0.8
_MOST_SEEDS = 1000


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its 95 % interval by Student's t; without one for a single seed."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def half(self) -> float | None:
        return None if self.low is None else (self.high - self.low) / 2


@dataclass(frozen=True)
class Difference:
    """An arm against the reference on the same seeds.

    Attributes:
        estimate: of the paired differences, arm minus reference.
        p_value: of the two-sided paired t test; None for a single seed.
        verdict: "better", "worse" or "undecided", at the 5 % level.
        seeds_to_decide: seeds at which a difference of this size and spread would be found four times out of
            five (paired t test at 5 %, power 80 %); None where that is over 1000 or not known.
    """

    estimate: Estimate
    p_value: float | None
    verdict: str
    seeds_to_decide: int | None


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and interval of independent values."""
    data = np.asarray(values, dtype=np.float64)
    mean, n = float(data.mean()), len(data)
    if n < 2:
        return Estimate(mean, None, None, n)
    half = float(special.stdtrit(n - 1, 0.5 + LEVEL / 2) * data.std(ddof=1) / np.sqrt(n))
    return Estimate(mean, mean - half, mean + half, n)


def paired(arm: Sequence[float], reference: Sequence[float], *, lower_is_better: bool) -> Difference:
    """Compare two arms seed by seed.

    Raises:
        ValueError: they were not measured on equally many seeds.
    """
    differences = np.subtract(arm, reference, dtype=np.float64)
    found = estimate(differences)
    p_value = _p_value(differences)
    better = (found.mean < 0) == lower_is_better
    decided = p_value is not None and p_value < 1 - LEVEL
    verdict = "undecided" if not decided else "better" if better else "worse"
    return Difference(found, p_value, verdict, seeds_to_decide(differences))


def together(found: Sequence[Difference]) -> list[Difference]:
    """Differences read side by side: a verdict stays only where all are right with 95 % (Holm 1979)."""
    p_values = np.array([1.0 if one.p_value is None else one.p_value for one in found])
    order = np.argsort(p_values, kind="stable")
    held = np.maximum.accumulate(p_values[order] * np.arange(len(found), 0, -1)) >= 1 - LEVEL
    undecided = set(order[held].tolist())
    return [replace(one, verdict="undecided") if i in undecided else one for i, one in enumerate(found)]


def _p_value(differences: np.ndarray) -> float | None:
    n = len(differences)
    if n < 2:
        return None
    mean, error = abs(differences.mean()), differences.std(ddof=1) / np.sqrt(n)
    if error == 0:
        return float(mean == 0)
    return float(2 * special.stdtr(n - 1, -mean / error))


def seeds_to_decide(differences: Sequence[float]) -> int | None:
    """Seeds for a paired t test of this effect at 5 % with 80 % power (noncentral t)."""
    if len(differences) < 2:
        return None
    mean, spread = abs(np.mean(differences)), np.std(differences, ddof=1)
    if mean == 0:
        return None
    if spread == 0:
        return 2
    n = np.arange(2, _MOST_SEEDS + 1)
    critical = special.stdtrit(n - 1, 0.5 + LEVEL / 2)
    power = 1 - special.nctdtr(n - 1, mean / spread * np.sqrt(n), critical)
    enough = np.flatnonzero(power >= _POWER)
    return int(n[enough[0]]) if len(enough) else None
