"""What a loss depends on: its derivative by each logit of a batch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.ladder.bench import Bench, measurement
from mlxstories.ladder.bench.arrays import changed
from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.epochs import train_epoch
from mlxstories.ladder.patches import rerouted

_ALIVE = 1e-9  # of the largest derivative
_ROWS = 16


@dataclass(frozen=True)
class Influence:
    """Which places of a batch, and which ids, a loss asks for.

    Attributes:
        batch: what was fed.
        places: whether the loss depends on the logits there, bool [B, T].
        asked: the id that the loss wants to be likelier there, [B, T].
    """

    batch: HostBatch
    places: np.ndarray
    asked: np.ndarray

    @property
    def share(self) -> float:
        """Of the places that the mask calls real, how many the loss depends on."""
        return float(self.places[self.batch.mask > 0].mean())

    @property
    def offset(self) -> tuple[int, float]:
        """By how much the ids asked for differ from the targets, most often, and how often."""
        at = self.places & (self.batch.mask > 0) & (self.batch.targets >= 0)
        counts = Counter((self.asked - self.batch.targets)[at].tolist())
        value, count = counts.most_common(1)[0] if counts else (0, 1)
        return value, count / max(1, int(at.sum()))


@measurement
def influence(bench: Bench) -> Influence | None:
    """Of the subject's own loss, on the first batch; None where it is the default, or cannot be told."""
    if bench.subject.loss is None:
        return None
    batch = train_epoch(bench).batches[0]
    batch = batch.rows(slice(0, _ROWS)) if batch.shape[0] > _ROWS else batch
    model = bench.model()
    model.eval()
    logits = bench.logits(model, np.maximum(batch.inputs, 0))
    try:
        slope = mx.grad(partial(_loss_beside, bench, model, batch))(mx.zeros_like(logits))
        mx.eval(slope)
    except Exception:  # a loss of another kind than a function of the logits
        return None
    slope = np.array(slope.astype(mx.float32))
    size = np.abs(slope).max(-1)
    if not np.isfinite(size).all() or size.max() == 0:
        return None
    return Influence(batch, size > _ALIVE * size.max(), slope.argmin(-1))


def _loss_beside(bench: Bench, model: nn.Module, batch: HostBatch, added: mx.array) -> mx.array:
    """The subject's loss with an array added to the logits of its model, which it calls once."""

    def answer(own, *args, **kwargs):
        return changed(own(*args, **kwargs), lambda logits: logits + added[:, : logits.shape[1]])

    with rerouted(model, answer):
        return bench.loss(model, batch)
