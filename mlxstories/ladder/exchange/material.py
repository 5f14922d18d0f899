"""What every training of an exchange shares: the same batches in the same order, and held-out rows."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mlxstories.ladder.bench import Bench, measurement
from mlxstories.ladder.bench.arrays import first_of, token_losses
from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.data.hashing import among, rolling
from mlxstories.ladder.bench.epochs import epoch_steps, second_epoch, train_epoch, val_epoch
from mlxstories.ladder.bench.samples import pool
from mlxstories.ladder.bench.scoring import scored
from mlxstories.ladder.bench.training.short import rows
from mlxstories.trees import by_path

_UPDATES, _FEWEST = 160, 60
_WORK = (
    1.6e8  # weights times tokens of an update, plus what its logits cost, up to which all updates are made
)
_LOGIT = 600  # what a logit costs, in weights times tokens
_HEAVY = 3_000_000  # logits of a batch from which it is cut
_HELD = 48  # rows
STRETCH = 12  # tokens that a held-out row may not share with what is trained on, at least
_SPENT = 0.02  # of the peak, at which a schedule has ended


@dataclass(frozen=True)
class Material:
    """What is trained on, and what is measured on.

    Attributes:
        batches: in the order of training, as many as there are updates.
        epoch: all that one pass over the data holds, without the held-out rows.
        held: rows that are measured; validation rows where there are any.
        unseen: whether these are validation rows, or share no stretch of half a row with what is trained on.
    """

    batches: list[HostBatch]
    epoch: list[HostBatch]
    held: HostBatch
    unseen: bool = True

    @property
    def updates(self) -> int:
        return len(self.batches)


@measurement
def material(bench: Bench) -> Material:
    """The subject's batches and rows held out of them, as many as the budget of updates allows."""
    epoch, val = train_epoch(bench), val_epoch(bench)
    found, unseen = list(epoch.batches), True
    if found[0].inputs.size * bench.subject.vocab_size > _HEAVY:
        short = rows(bench)
        found, held = short.batches, short.held
    elif val is not None:
        held = _spread(pool(val, 10**6))
    else:
        kept = max(1, len(found) // 10) if len(found) >= 8 else 0
        held = pool(epoch, 10**6)
        held = held.rows(slice(max(0, held.shape[0] - max(kept * found[0].shape[0], 8)), None))
        found, held, unseen = _apart(found[: len(found) - kept], held)
        held = _spread(held)
    updates, whole = _updates(bench, found[0].inputs.size), found
    if len(found) < updates and epoch.complete:
        found = found + second_epoch(bench).batches if val is not None else found
    return Material([found[i % len(found)] for i in range(updates)], whole, held, unseen)


def _apart(batches: list[HostBatch], held: HostBatch) -> tuple[list[HostBatch], HostBatch, bool]:
    """Windows of a text may overlap: rows of which half a row is trained on are not held out, or, where most are such,
    the batches that hold these stretches are not trained on. Whether that could be had is told too."""
    length = max(STRETCH, held.shape[1] // 2)
    if held.shape[1] < length:
        return batches, held, True
    trained = [rolling(batch.tokens, length) for batch in batches]
    own = rolling(held.tokens, length)
    own[~sliding_window_view(held.mask > 0, length - 1, axis=1).all(-1)] = 0  # padding is everywhere the same
    fresh = ~among(own, np.concatenate([found.ravel() for found in trained])).any(1)
    if 2 * fresh.sum() >= len(fresh):
        return batches, held.rows(np.flatnonzero(fresh)), True
    free = [batch for batch, found in zip(batches, trained, strict=True) if not among(found, own).any()]
    return (free, held, True) if 2 * len(free) >= len(batches) else (batches, held, False)


def _spread(rows: HostBatch) -> HostBatch:
    """No more rows than are measured, from beginning to end: sources may stand one behind the other."""
    count = rows.shape[0]
    return rows.rows(np.unique(np.linspace(0, count - 1, min(count, _HELD)).round().astype(int)))


def _updates(bench: Bench, tokens: int) -> int:
    """How many, by sizes alone: so the machine's load changes no verdict; no more than a schedule lasts."""
    weights = sum(a.size for a in by_path(bench.model().parameters()).values())
    work = tokens * (weights + _LOGIT * bench.subject.vocab_size)
    updates = int(min(_UPDATES, max(_FEWEST, _UPDATES * _WORK / work)))
    schedule, epoch = bench.schedule, epoch_steps(bench)
    if schedule.scheduled and epoch is not None:
        over = [s for s, r in zip(schedule.steps, schedule.rates, strict=True) if r < _SPENT * schedule.peak]
        end = next((s for s in over if s > schedule.peak_step), updates)
        # A schedule that ends before all data were seen once is taken as it is.
        updates = min(updates, end) if end >= epoch else updates
    return updates


@dataclass(frozen=True)
class Measured:
    """A model on the held-out rows.

    Attributes:
        nats: summed over the tokens of each row, [B].
        tokens: of each row, [B].
    """

    nats: np.ndarray
    tokens: np.ndarray

    @property
    def loss(self) -> float:
        """In nats per token."""
        return float(self.nats.sum() / max(self.tokens.sum(), 1))

    def error_beside(self, other: Measured) -> float:
        """Standard error of the difference of both losses, rows being independent."""
        difference = (self.nats - other.nats) / max(self.tokens.mean(), 1e-9)
        return float(difference.std(ddof=1) / np.sqrt(len(difference))) if len(difference) > 1 else 0.0


def held_out(bench: Bench, model: nn.Module) -> Measured:
    """Our own measurement of a model, in evaluation mode."""
    found = scored(bench, model, material(bench).held)
    return Measured(np.where(found.real, found.nats, 0).sum(1), found.real.sum(1))


def plain_loss(model: nn.Module, batch: HostBatch) -> mx.array:
    """Mean cross-entropy of what is to be predicted, following the mask only: the loss known to be sound."""
    out = model(mx.array(np.maximum(batch.inputs, 0).astype(np.int32)))
    real = (batch.mask > 0) & (batch.targets >= 0)
    targets = mx.array(np.where(real, batch.targets, 0).astype(np.int32))
    losses, _ = token_losses(first_of(out), targets)
    weights = mx.array(real.astype(np.float32))
    return (losses * weights).sum() / mx.maximum(weights.sum(), 1)
