"""How often a schedule begins again."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mlxstories.ladder.bench.bench import Bench
from mlxstories.ladder.bench.epochs import epoch_steps
from mlxstories.ladder.bench.step.plan import PartRate

EPOCHS = 4
_READ = 512  # updates, spread over them


def schedule_restarts(bench: Bench, part: PartRate) -> int | None:
    """How often in the first four epochs the learning rate falls by half and doubles again; None without a schedule,
    or where epochs were not read to the end."""
    scheduled, epoch = part.scheduled, epoch_steps(bench)
    if scheduled is None or not epoch:
        return None
    steps = np.unique(np.linspace(0, EPOCHS * epoch, min(EPOCHS * epoch + 1, _READ)).astype(int))
    return count_restarts([max(0.0, scheduled(int(step))) for step in steps])  # one below 0 is told elsewhere


def count_restarts(rates: Iterable[float]) -> int:
    """How often a series falls below half of what it reached and then rises to twice what it fell to."""
    count, falling, edge = 0, True, 0.0
    for rate in rates:
        if falling:  # looks for the fall from the highest so far
            edge = max(edge, rate)
            if rate < edge / 2:
                falling, edge = False, rate
        else:
            edge = min(edge, rate)
            if rate > 2 * edge:
                count, falling, edge = count + 1, True, rate
    return count
