"""Whether the subject's loss has a gradient, compared with our own cross-entropy and what its step passes on."""

from __future__ import annotations

from dataclasses import dataclass

from mlxstories.ladder.bench.arrays import norm
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.samples import probe_batch
from mlxstories.ladder.bench.step.received_gradient import loss_gradient, watched_step

_SMALL = 1e-3  # of our gradient's length, below which the step is asked too


@dataclass(frozen=True)
class LossSlope:
    """Lengths of gradients over all parameters, on one batch and the same weights.

    Attributes:
        loss: of the subject's loss.
        value: of that loss itself, no length.
        ours: of our own cross-entropy.
        received: of what the step passes to the optimiser, where the loss's is small; None where there is no step, or
            it cannot be read.
    """

    loss: float
    value: float
    ours: float
    received: float | None


@measurement
def loss_slope(bench: Bench) -> LossSlope:
    """Take the gradients on a few rows, with noise on the weights."""
    model, batch, received = bench.noisy(7), probe_batch(bench, 0), {}
    ours = norm(bench.gradients(model, batch))
    if not ours:  # as where nothing is left to be trained
        return LossSlope(0.0, 0.0, 0.0, None)
    value, slope = loss_gradient(bench, model, batch)
    loss = norm(slope)
    if bench.subject.train_step is not None and loss < _SMALL * ours:
        received = watched_step(bench, model, bench.optimizer(), batch)[1]
    return LossSlope(loss, value, ours, norm(received) if received else None)
