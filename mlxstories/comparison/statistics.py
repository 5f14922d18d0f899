"""Means, paired differences and what can be said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

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
        verdict: "better", "worse" or "undecided", by whether the interval leaves out 0.
        seeds_to_decide: seeds at which a difference of this size and spread would be found four times out of
            five (paired t test at 5 %, power 80 %); None where that is over 1000 or not known.
    """

    estimate: Estimate
    verdict: str
    seeds_to_decide: int | None


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and interval of independent values."""
    data = np.asarray(values, dtype=np.float64)
    mean, n = float(data.mean()), len(data)
    if n < 2:
        return Estimate(mean, None, None, n)
    half = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1) * data.std(ddof=1) / np.sqrt(n))
    return Estimate(mean, mean - half, mean + half, n)


def paired(arm: Sequence[float], reference: Sequence[float], *, lower_is_better: bool) -> Difference:
    """Compare two arms seed by seed.

    Raises:
        ValueError: they were not measured on equally many seeds.
    """
    differences = np.subtract(arm, reference, dtype=np.float64)
    found = estimate(differences)
    decided = found.low is not None and (found.low > 0 or found.high < 0)
    better = (found.mean < 0) == lower_is_better
    verdict = "undecided" if not decided else "better" if better else "worse"
    return Difference(found, verdict, seeds_to_decide(differences))


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
    critical = stats.t.ppf(0.5 + LEVEL / 2, n - 1)
    power = stats.nct.sf(critical, n - 1, mean / spread * np.sqrt(n))
    enough = np.flatnonzero(power >= _POWER)
    return int(n[enough[0]]) if len(enough) else None
