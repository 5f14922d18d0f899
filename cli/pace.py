"""The time that a training will still take, at the pace of its last updates."""

from __future__ import annotations

import collections
import time


class Pace:
    """Told the step now and then; what else a machine does may change at any time, so that the recent pace counts.

    Args:
        updates: over which it is measured, such as those from one validation to the next, which takes time too.
    """

    def __init__(self, updates: int):
        self._updates = updates
        self._readings: collections.deque[tuple[float, int]] = collections.deque()

    def left(self, step: int, total: int) -> float | None:
        """Seconds from ``step`` updates to ``total``; None at the first reading, and where training went back."""
        readings = self._readings
        if readings and step <= readings[-1][1]:
            readings.clear()
        readings.append((time.monotonic(), step))
        while len(readings) > 2 and step - readings[1][1] >= self._updates:
            readings.popleft()
        (since, first), (now, _) = readings[0], readings[-1]
        return None if step == first else (total - step) * (now - since) / (step - first)
