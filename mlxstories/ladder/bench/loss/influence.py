"""Which rows of a batch a training step learns from, and which places the loss counts."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.epochs import train_epoch
from mlxstories.ladder.bench.loss.convention import logit_gradient
from mlxstories.ladder.bench.samples import minimal_batch, sample

_ROWS = 6  # of a full batch that are changed
_CALLS = 16  # of a step that updates only every so many


@dataclass(frozen=True)
class RowInfluence:
    """Rows whose content was changed before a step.

    Attributes:
        tried: rows that were changed, one at a time.
        ignored: those whose change altered the update of no weight.
        loss_alike: whether the step's loss stayed the same too, for all of those.
        rows: of the batch.
    """

    tried: list[int]
    ignored: list[int]
    loss_alike: bool
    rows: int


@measurement
def row_influence(bench: Bench) -> RowInfluence | str:
    """Change one row at a time, on a small batch first and, where a row has no influence, on one of full size; a reason
    where steps cannot be compared."""
    small = _changed_rows(bench, minimal_batch(bench))
    if isinstance(small, str) or not small.ignored:
        return small
    # A step may drop the rows that its micro-batches do not divide: let it have its own size.
    source = train_epoch(bench).batches[0]
    rows, width = source.shape[0], minimal_batch(bench).shape[1]
    pool = sample(bench)
    return _changed_rows(bench, pool.rows(np.arange(rows) % pool.shape[0]).cut(width))


def _changed_rows(bench: Bench, batch: HostBatch) -> RowInfluence | str:
    plain, again = _update(bench, batch, 1), _update(bench, batch, 2)
    if plain is None or again is None:
        return "no update in the first calls"
    if not _same(plain, again):
        return "the step is random even with dropout off"
    if not all(np.isfinite(a).all() for a in plain[1].values()):
        return "not finite"
    real = np.flatnonzero((batch.mask > 0).sum(1) > 1)
    tried = (
        [int(real[i]) for i in sorted({*np.linspace(0, len(real) - 1, _ROWS).astype(int)})]
        if len(real)
        else []
    )
    ignored, alike = [], True
    for row in tried:
        changed = _update(bench, _with_other_row(bench, batch, row), 1)
        if changed is not None and all(np.array_equal(a, changed[1][n]) for n, a in plain[1].items()):
            ignored.append(row)
            alike = alike and changed[0] == plain[0]
    return RowInfluence(tried, ignored, alike, batch.shape[0])


def _same(one, other) -> bool:
    return one[0] == other[0] and all(np.array_equal(a, other[1][n]) for n, a in one[1].items())


def _update(bench: Bench, batch: HostBatch, seed: int) -> tuple[float, dict[str, np.ndarray]] | None:
    """The loss and the weights after the first call that changes any, from a fresh model and optimiser."""
    model, optimizer = bench.model(), bench.optimizer()
    model.eval()
    before = _arrays(model)
    for call in range(_CALLS):
        bench.seed_all(seed + call)
        loss = bench.step(model, optimizer, batch)
        after = _arrays(model)
        if any(not np.array_equal(a, before[n]) for n, a in after.items() if n in before):
            return loss, after
    return None


def _arrays(model: nn.Module) -> dict[str, np.ndarray]:
    flat = tree_flatten(model.trainable_parameters())
    return {n: np.array(a.astype(mx.float32) if a.dtype == mx.bfloat16 else a) for n, a in flat}


def _with_other_row(bench: Bench, batch: HostBatch, row: int) -> HostBatch:
    """The batch with other tokens in the real cells of one row, from the row's own."""
    rng = np.random.default_rng((bench.seed, 67, row))
    inputs, targets = batch.inputs.copy(), batch.targets.copy()
    real = batch.mask[row] > 0
    order = rng.permutation(int(real.sum()))
    inputs[row, real] = inputs[row, real][order]
    size = bench.subject.vocab_size
    targets[row, real] = (targets[row, real] + rng.integers(1, size, int(real.sum()))) % size
    return batch.with_(inputs=inputs, targets=targets)


@dataclass(frozen=True)
class Counted:
    """Real cells of a batch, and those whose logits the loss depends on.

    Attributes:
        real, counted: how many.
        length: real cells of a row, on average.
        places: that count in any row.
        prefix: the number of places from the first on that count in every row, whatever the tokens, and no other
            does; 0 where it is not so.
    """

    real: int
    counted: int
    length: float
    places: list[int]
    prefix: int


@measurement
def counted_places(bench: Bench) -> Counted | None:
    """The gradient of the loss, or the step's, with respect to logits; None where it needs more of a model than logits,
    or is our own."""
    if bench.minimises_ours:
        return None
    rows = sample(bench)
    batch = rows.rows(slice(0, min(4, rows.shape[0])))
    rng = np.random.default_rng((bench.seed, 71))
    logits = rng.standard_normal((*batch.shape, bench.subject.vocab_size)).astype(np.float32)
    gradient, real = logit_gradient(bench, batch, logits), batch.mask > 0
    if gradient is None or not real.any():
        return None
    counted = (np.abs(gradient).max(-1) > 0) & real
    places = sorted(int(p) for p in np.flatnonzero(counted.any(0)))
    prefix = len(places) if _first_places(counted, real, places) else 0
    if prefix:  # and whatever the tokens
        size, again = bench.subject.vocab_size, rng.permutation(bench.subject.vocab_size)
        other = batch.with_(inputs=again[batch.inputs % size], targets=again[batch.targets % size])
        gradient = logit_gradient(bench, other, logits)
        same = gradient is not None and np.array_equal((np.abs(gradient).max(-1) > 0) & real, counted)
        prefix = prefix if same else 0
    return Counted(int(real.sum()), int(counted.sum()), float(real.sum(1).mean()), places, prefix)


def _first_places(counted: np.ndarray, real: np.ndarray, places: list[int]) -> bool:
    """Whether exactly the real cells of the first places count."""
    first = np.arange(counted.shape[1]) < len(places)
    return bool(places) and np.array_equal(counted, real & first)
