"""Whether what reaches the optimiser depends on the order of a batch's rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.samples import probe_batch
from mlxstories.ladder.bench.step.gradient_arrival import distance, first_run, gradient_arrival
from mlxstories.ladder.bench.step.optimizers import intercepted
from mlxstories.ladder.bench.step.received_gradient import loss_gradient, watched_step


@dataclass(frozen=True)
class RowOrder:
    """How far apart the gradients of one batch are with its rows in order and in reverse, over their length.

    Attributes:
        received: what reaches the optimiser.
        own: the gradient of the loss.
    """

    received: float
    own: float


@measurement
def row_order(bench: Bench) -> RowOrder | None:
    """Compare both orders; None where gradients cannot be read, are random, or a call is not one update."""
    batch, run = probe_batch(bench, 0), first_run(bench)
    if isinstance(gradient_arrival(bench), str) or run is None or run.calls > 1 or batch.shape[0] < 2:
        return None
    model, optimizer, updates = bench.model(), bench.optimizer(), []
    model.eval()
    turned = batch.rows(np.arange(batch.shape[0])[::-1])
    bench.seed_all(1)
    _, own = loss_gradient(bench, model, turned)
    bench.seed_all(1)
    with intercepted(optimizer, lambda gradients: updates.append(gradients) or gradients):
        _, received = watched_step(bench, model, optimizer, turned)
    if len(updates) != 1 or received.keys() != run.received[0].keys():
        return None
    return RowOrder(distance(run.received[0], received), distance(run.gradient, own))
