"""The step on the most unusual of the subject's own batches, as they are."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.epochs import train_epoch
from mlxstories.trees import by_path

_LOGITS = 4_000_000  # of a batch, at most


@dataclass(frozen=True)
class UnusualBatch:
    """One step of a fresh model.

    Attributes:
        index: of the batch in the epoch.
        shape: of its inputs.
        real: cells that count.
        loss: that the step returned.
        finite: whether the weights are numbers after it.
    """

    index: int
    shape: tuple[int, int]
    real: int
    loss: float
    finite: bool


@measurement
def unusual_batches(bench: Bench) -> list[UnusualBatch]:
    """Take a step on the batches of fewest and of most real cells, and on the narrowest and the widest, unmodified.
    Empty where all are alike; batches on which a step would be slow are left out."""
    batches = train_epoch(bench).batches
    real = np.array([(batch.mask > 0).sum() for batch in batches])
    width = np.array([batch.shape[1] for batch in batches])
    wanted = {int(pick(of)) for of in (real, width) if np.ptp(of) for pick in (np.argmin, np.argmax)}
    cheap = [i for i in sorted(wanted) if batches[i].inputs.size * bench.subject.vocab_size <= _LOGITS]
    return [_step(bench, i, batches[i], int(real[i])) for i in cheap]


def _step(bench: Bench, index: int, batch: HostBatch, real: int) -> UnusualBatch:
    model, optimizer = bench.model(), bench.optimizer()
    model.train()
    bench.seed_all(bench.seed)
    loss = bench.step(model, optimizer, batch)
    weights = [
        a for a in by_path(model.trainable_parameters()).values() if mx.issubdtype(a.dtype, mx.floating)
    ]
    return UnusualBatch(index, batch.shape, real, loss, all(bool(mx.isfinite(a).all()) for a in weights))
