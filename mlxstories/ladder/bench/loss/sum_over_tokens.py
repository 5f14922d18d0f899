"""Whether the optimiser follows a sum over tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlxstories.ladder.bench.arrays import norm
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.loss.demands import uniform
from mlxstories.ladder.bench.samples import probe_batch
from mlxstories.ladder.bench.step.received_gradient import own_and_received

_EXACT = 1e-3  # of the sum


@dataclass(frozen=True)
class Sum:
    """A loss that adds up what its tokens cost.

    Attributes:
        tokens: that count in the batch of a step.
        arriving: norm of the gradient that reaches the optimiser, over that of the mean.
    """

    tokens: int
    arriving: float


@measurement
def sum_over_tokens(bench: Bench) -> Sum | None:
    """Measure a loss that is a sum; None where it is not, sums a single token, or cannot be asked."""
    found = uniform(bench)
    if found is None or min(found.counts) < 2:
        return None
    if not np.allclose(found.losses, found.counts, rtol=_EXACT):
        return None
    batch = probe_batch(bench, 0)
    gradient, received = own_and_received(bench, batch)
    tokens = int((batch.mask > 0).sum())
    return Sum(tokens, norm(received) * tokens / max(norm(gradient), 1e-30)) if received else None
