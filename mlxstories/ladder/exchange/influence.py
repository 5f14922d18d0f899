"""What a loss depends on: its derivative with respect to each logit of a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.ladder.bench import Bench, measurement
from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.material import train_epoch

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
        with answering(model, lambda out, added: out + added[:, : out.shape[1]]) as give:

            def loss(added: mx.array) -> mx.array:
                give(added)
                return bench.loss(model, batch)

            slope = mx.grad(loss)(mx.zeros_like(logits))
            mx.eval(slope)
    except Exception:  # a loss of another kind than a function of the logits
        return None
    slope = np.array(slope.astype(mx.float32))
    size = np.abs(slope).max(-1)
    if not np.isfinite(size).all() or size.max() == 0:
        return None
    return Influence(batch, size > _ALIVE * size.max(), slope.argmin(-1))


class answering:
    """Inside, the model's logits are passed through ``change`` with the array last given; models of one call only."""

    def __init__(self, model: nn.Module, change: Callable[[mx.array, mx.array], mx.array]):
        self.model, self.change, self.own = model, change, type(model)
        self.array: mx.array | None = None

    def give(self, array: mx.array) -> None:
        self.array = array

    def __enter__(self) -> Callable[[mx.array], None]:
        def call(model, *args, **kwargs):
            out = self.own.__call__(model, *args, **kwargs)
            if isinstance(out, (tuple, list)):
                return type(out)([self.change(out[0], self.array), *out[1:]])
            return self.change(out, self.array)

        # Calls are looked up on the class, so the object takes another one for a while.
        self.model.__class__ = type(self.own.__name__, (self.own,), {"__call__": call})
        return self.give

    def __exit__(self, *_) -> None:
        self.model.__class__ = self.own
