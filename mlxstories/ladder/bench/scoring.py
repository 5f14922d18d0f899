"""How a model in evaluation mode does on given rows, a few of them at a time."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.nn as nn
import numpy as np

from mlxstories.ladder.bench.arrays import token_losses
from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.bench import Bench
from mlxstories.ladder.modes import in_mode

_EVALUATED = 1_000_000  # logits held at once


@dataclass(frozen=True)
class Scored:
    """Cells [B, T]: nats of the targets, whether the argmax hits them, and whether there is something to predict."""

    nats: np.ndarray
    hits: np.ndarray
    real: np.ndarray

    @property
    def loss(self) -> float:
        """In nats per real token."""
        return float(self.nats[self.real].sum(dtype=np.float64) / max(self.real.sum(), 1))

    @property
    def accuracy(self) -> float:
        """Of the real tokens."""
        return float(self.hits[self.real].sum() / max(self.real.sum(), 1))


def scored(bench: Bench, model: nn.Module, batch: HostBatch) -> Scored:
    """Losses and hits in evaluation mode; the mode is put back."""
    rows = max(1, _EVALUATED // (batch.shape[1] * bench.subject.vocab_size))
    parts = []
    with in_mode(model, training=False):
        for start in range(0, batch.shape[0], rows):
            part = batch.rows(slice(start, start + rows))
            device = part.device()
            nats, hits = token_losses(bench.logits(model, device.inputs), device.targets)
            parts.append((np.array(nats), np.array(hits), (part.mask > 0) & (part.targets >= 0)))
    return Scored(*(np.concatenate(cells) for cells in zip(*parts, strict=True)))
