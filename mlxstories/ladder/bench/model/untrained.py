"""The untrained model on a few rows: the tables it reads, whether its numbers are finite, its first loss."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.ladder.bench.arrays import token_losses
from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.samples import sample, whole_sample
from mlxstories.trees import by_path

_PROBE = 8  # rows that the untrained model is shown


@dataclass(frozen=True)
class TableReads:
    """What the model looks up for one full row and for the highest id.

    Attributes:
        outside: (id or position, rows of the table) of each look-up outside of its table.
        width: logits a position.
        length: of the row.
    """

    outside: list[tuple[int, int]]
    width: int
    length: int


@dataclass(frozen=True)
class Finiteness:
    """The numbers of the untrained model.

    Attributes:
        broken: paths of parameters that hold NaN.
        share: of logits that are NaN or +inf, or belong to a real target that was given no chance at all.
    """

    broken: list[str]
    share: float


@dataclass(frozen=True)
class LossOfRows:
    """The subject's loss on rows of so many real tokens each."""

    value: float
    real_tokens: list[int]


@dataclass(frozen=True)
class FirstAnswer:
    """The untrained model's logits on the probe, in figures.

    Attributes:
        vocabulary: logits a position.
        lowest: smallest logit.
        off_one: largest distance of a position's sum of logits from 1.
        spread: standard deviation of the logits.
        loss: in nats per real token.
        expected: that of guessing, ln V.
        excess: of the loss above it, the logit of a position's own input left out where that is kinder.
    """

    vocabulary: int
    lowest: float
    off_one: float
    spread: float
    loss: float
    expected: float
    excess: float


def probe(bench: Bench) -> HostBatch:
    """The rows that the untrained model is shown."""
    return sample(bench).rows(slice(0, _PROBE))


@measurement
def table_reads(bench: Bench) -> TableReads:
    """Look up a row of full length, which quick checks do not shorten, and a row of the highest id."""
    model, row = bench.model(), whole_sample(bench).inputs[:1]
    with watched_tables() as outside:
        width = bench.logits(model, row).shape[-1]
        bench.logits(model, np.full(row.shape, bench.subject.vocab_size - 1))
    return TableReads(outside, width, row.shape[1])


@contextmanager
def watched_tables() -> Iterator[list[tuple[int, int]]]:
    """Have every ``nn.Embedding`` check its ids before MLX reads past the table: (id, rows of the table) of each."""
    original, found = nn.Embedding.__call__, []

    def checked(table, ids):
        size = table.weight.shape[0]
        if mx.issubdtype(ids.dtype, mx.integer) and ids.size:
            low, high = int(ids.min()), int(ids.max())
            if high >= size or low < -size:
                found.append((high if high >= size else low, size))
                ids = mx.clip(ids, 0, size - 1)
        return original(table, ids)

    nn.Embedding.__call__ = checked
    try:
        yield found
    finally:
        nn.Embedding.__call__ = original


@measurement
def finiteness(bench: Bench) -> Finiteness:
    """Look for what is not finite among the parameters and the logits of the fullest and the shortest rows."""
    model = bench.model()
    broken = [
        name
        for name, array in by_path(model.trainable_parameters()).items()
        if mx.issubdtype(array.dtype, mx.floating) and bool(mx.any(mx.isnan(array)))
    ]
    # The shortest rows too: a mean over what they do not have is not a number.
    parts = (probe(bench).rows(slice(0, 4)), sample(bench).rows(slice(-4, None)))
    return Finiteness(broken, max(_share_broken(bench, model, part) for part in parts))


def _share_broken(bench: Bench, model: nn.Module, part: HostBatch) -> float:
    device = part.device()
    logits = bench.logits(model, device.inputs, raw=True)
    losses, _ = token_losses(logits, device.targets)
    impossible = ~mx.isfinite(losses) & (device.mask > 0)  # a target that was given no chance at all
    return float(mx.mean(mx.isnan(logits) | (logits == mx.inf) | impossible[..., None]))


@measurement
def first_losses(bench: Bench) -> list[LossOfRows]:
    """The subject's loss on its fullest rows, its shortest, and the very shortest one; up to one not finite."""
    model, rows = bench.model(), sample(bench)
    shortest = rows.rows(slice(-4, None))
    found: list[LossOfRows] = []
    for batch in (rows.rows(slice(0, 4)), shortest, shortest.rows(slice(-1, None))):
        with bench.calling("loss"):
            value = float(bench.loss(model, batch))
        found.append(LossOfRows(value, [int(row.sum()) for row in batch.mask]))
        if not np.isfinite(value):
            break
    return found


@measurement
def first_answer(bench: Bench) -> FirstAnswer:
    """Show the untrained model the probe."""
    rows = probe(bench)
    logits = bench.logits(bench.model(), rows.inputs)
    values = np.array(logits)
    size = values.shape[-1]
    loss, expected = _mean_loss(values, rows, rows.mask > 0), math.log(size)
    return FirstAnswer(
        vocabulary=size,
        lowest=float(values.min()),
        off_one=float(np.abs(values.sum(-1) - 1).max()),
        spread=float(values.std()),
        loss=loss,
        expected=expected,
        excess=min(loss, _loss_without_own(values, rows, loss)) - expected,
    )


def _mean_loss(values: np.ndarray, rows: HostBatch, cells: np.ndarray) -> float:
    losses, _ = token_losses(mx.array(values), rows.device().targets)
    return float(np.array(losses)[cells].mean())


def _loss_without_own(values: np.ndarray, rows: HostBatch, loss: float) -> float:
    """The loss with the logit of each position's own input made small.

    A tied model loves its own input at first, which training unlearns at once.
    """
    apart = (rows.mask > 0) & (rows.targets != rows.inputs)
    if not apart.any():
        return loss
    own = values.copy()
    np.put_along_axis(own, np.maximum(rows.inputs, 0)[..., None], own.min(-1, keepdims=True), -1)
    return _mean_loss(own, rows, apart)
