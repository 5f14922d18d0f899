"""Loss and accuracy of known logits under every way of averaging that occurs in practice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlxstories.ladder.bench.batches import HostBatch

MEAN = "mean"
UNEQUAL = ("mean of batch means", "mean of row means")
PADDED = ("padding", "padding, mean of batch means", "padding in the denominator", "padding taken as right")


@dataclass(frozen=True)
class Average:
    """Nats of the targets, nats of all tokens alike (what label smoothing adds) and accuracy."""

    loss: float
    flat: float
    accuracy: float

    def smoothing(self, value: float) -> float:
        """The label smoothing that would make ``value`` of this loss."""
        room = self.flat - self.loss
        return (value - self.loss) / room if abs(room) > 1e-6 else 0.0


@dataclass(frozen=True)
class Cells:
    """Nats, flat nats and hits of each cell of a batch, [3, B, T], and which cells are real, [B, T]."""

    values: np.ndarray
    real: np.ndarray

    @property
    def rows(self) -> list[np.ndarray]:
        """The means of each row's real cells."""
        return [self.values[:, i][:, real].mean(1) for i, real in enumerate(self.real) if real.any()]


def averages(logits: Sequence[np.ndarray], batches: Sequence[HostBatch]) -> dict[str, Average]:
    """Averages by the name of the way of averaging; ``mean`` is the right one."""
    return averages_of([_cells(values, batch) for values, batch in zip(logits, batches, strict=True)])


def averages_of(cells: Sequence[Cells]) -> dict[str, Average]:
    """The same for cells that are known, one item a batch."""
    mean = np.concatenate([c.values[:, c.real] for c in cells], axis=1).mean(1)
    share = sum(c.real.sum() for c in cells) / sum(c.real.size for c in cells)
    means = {
        MEAN: mean,
        "mean of batch means": np.mean([c.values[:, c.real].mean(1) for c in cells], 0),
        "mean of row means": np.mean([row for c in cells for row in c.rows], 0),
        "padding": np.concatenate([c.values.reshape(3, -1) for c in cells], axis=1).mean(1),
        "padding, mean of batch means": np.mean([c.values.mean((1, 2)) for c in cells], 0),
        "padding in the denominator": share * mean,
        "padding taken as right": share * mean + np.array([0, 0, 1 - share]),
    }
    return {name: Average(*map(float, values)) for name, values in means.items()}


def _cells(logits: np.ndarray, batch: HostBatch) -> Cells:
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    nats = -np.take_along_axis(logs, np.maximum(batch.targets, 0)[..., None], -1)[..., 0]
    hits = (logits.argmax(-1) == batch.targets).astype(np.float64)
    # What is left out may be said by the target alone: -100 in PyTorch.
    return Cells(np.stack([nats, -logs.mean(-1), hits]), (batch.mask > 0) & (batch.targets >= 0))
