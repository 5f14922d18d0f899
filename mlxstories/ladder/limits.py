"""Limits of the ladder's checks; see `mlxstories.findings.limits`, which the watch over trainings shares."""

from mlxstories.findings.limits import Gauge, Gauges, Limit

__all__ = ["Gauge", "Gauges", "Limit"]
