"""The time that a training will still take, at the pace of its last updates."""

from __future__ import annotations

import collections
import time


class TimeLeft:
    """Told the current step now and then; measures the pace over the last half of the updates. Other load on the
    machine changes, but not so slowly that the last few updates alone would say more (docs/own_stories.md).

    Args:
        updates: over which it is measured at the least, such as those of two validations, which take time too.
    """

    def __init__(self, updates: int):
        self._updates = updates
        self._readings: collections.deque[tuple[float, int]] = collections.deque()
        self._start = 0

    def left(self, step: int, total: int) -> float | None:
        """Seconds from ``step`` updates to ``total``; None at the first reading, and where training went back."""
        readings = self._readings
        if not readings or step <= readings[-1][1]:
            readings.clear()
            self._start = step
        readings.append((time.monotonic(), step))
        enough = max(self._updates, (step - self._start) / 2)
        while len(readings) > 2 and step - readings[1][1] >= enough:
            readings.popleft()
        (since, first), (now, _) = readings[0], readings[-1]
        return None if step == first else (total - step) * (now - since) / (step - first)
