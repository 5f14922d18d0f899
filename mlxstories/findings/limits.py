"""Limits that verdicts depend on, as data, and the readings compared with them.

Those at the end are shared: the checks of the ladder, the watch over trainings and repair's suspects hold the same
reading against the same limit. What one check alone asks has its limit there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limit:
    """A value that a measurement is held against.

    Attributes:
        value: the limit.
        unit: of the value and of what is measured.
    """

    value: float
    unit: str = ""

    def above(self, reading: float) -> bool:
        """Whether a reading exceeds the limit; where readings are remembered, `Gauge` does."""
        return reading > self.value

    def below(self, reading: float) -> bool:
        """Whether a reading falls short of the limit."""
        return reading < self.value


@dataclass
class Gauge:
    """A limit in use by one check: it compares, and remembers what was read.

    ``benchmarks/faults.py`` gathers the readings of healthy and of faulty subjects: the margins of the limit.
    """

    limit: Limit
    readings: list[float] = field(default_factory=list)

    @property
    def value(self) -> float:
        return self.limit.value

    def above(self, reading: float) -> bool:
        """Whether a reading exceeds the limit."""
        self.readings.append(float(reading))
        return reading > self.limit.value

    def below(self, reading: float) -> bool:
        """Whether a reading falls short of the limit."""
        self.readings.append(float(reading))
        return reading < self.limit.value


class Gauges:
    """The limits of one check by name, as attributes."""

    def __init__(self, limits: Mapping[str, Limit]):
        self._gauges = {name: Gauge(limit) for name, limit in limits.items()}

    def __getattr__(self, name: str) -> Gauge:
        try:
            return self._gauges[name]
        except KeyError:
            raise AttributeError(f"this check has no limit {name!r}") from None

    def read(self) -> dict[str, Gauge]:
        """The gauges that were consulted."""
        return {name: gauge for name, gauge in self._gauges.items() if gauge.readings}


FADES = Limit(5e-3, "of the weights a step")
"""Taken by weight decay: what was learnt two hundred updates ago has faded to a third."""
CLIPPED = Limit(0.2, "of the gradient's length")
"""Left by a clip."""
OVERSTEPS = Limit(10.0, "times the learning rate")
"""The largest update of an Adam without bias correction; betas of 0.9 and 0.999 reach 6.6."""
CLIMBS = Limit(0.5, "of the run")
"""In which the learning rate climbs to its peak."""
LEAPS = Limit(2.5, "times what the update before brought")
"""Of a learning rate that climbs from the start, to the next update."""
BELOW_FLOOR = Limit(0.02, "nats below the source's entropy")
WORSE_THAN_GUESSING = Limit(1.0, "nats above guessing, or above the best loss")

OUT_OF_ORDER = Limit(1.0, "beta1² / sqrt(beta2)")
"""Below it Adam converges (Kingma and Ba 2015, section 4)."""
REMEMBERS = Limit(0.998, "of the last update, kept")
BLUNTS = Limit(30.0, "times the gradient's entries")
"""An epsilon that is all that Adam divides by."""
