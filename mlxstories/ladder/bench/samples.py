"""Small batches of the subject's own rows, for quick checks and for what is memorised."""

from __future__ import annotations

import numpy as np

from mlxstories.ladder.bench.batches import HostBatch, joined
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.epoch import Epoch
from mlxstories.ladder.bench.epochs import train_epoch
from mlxstories.ladder.bench.subject_fault import SubjectFault

_CHEAP = 1_200_000  # logits of a step on the bench
_ROWS = 64  # distinct rows that are looked at


@measurement
def whole_sample(bench: Bench) -> HostBatch:
    """Up to 64 distinct training rows of one shape: the fullest first, equally full ones in order of appearance, and
    last those that repeat a single token, which show nothing."""
    rows = pool(train_epoch(bench), _ROWS)
    full = np.where((rows.inputs != rows.inputs[:, :1]).any(1), (rows.mask > 0).sum(1), 0)
    return rows.rows(np.argsort(-full, kind="stable"))


@measurement
def sample(bench: Bench) -> HostBatch:
    """The same rows, cut to the width of quick checks."""
    rows = whole_sample(bench)
    return rows if bench.width is None else rows.cut(bench.width)


def pool(epoch: Epoch, count: int) -> HostBatch:
    """Up to ``count`` distinct rows of the commonest length of an epoch."""
    batches = epoch.batches
    lengths = [batch.shape[1] for batch in batches for _ in range(batch.shape[0])]
    length = max(set(lengths), key=lengths.count)
    same = [batch for batch in batches if batch.shape[1] == length]
    rows = joined(same)
    _, first = np.unique(np.concatenate([rows.inputs, rows.targets], axis=1), axis=0, return_index=True)
    real = rows.mask.sum(1) > 0
    order = [i for i in np.sort(first) if real[i]] or [0]
    return rows.rows(np.array(order[:count]))


@measurement
def minimal_batch(bench: Bench) -> HostBatch:
    """The four stories (or as many as there are) that the minimal rung memorises, repeated to the subject's own batch
    size where its step insists on that."""
    rows = sample(bench)
    batch = _small(bench, rows)
    try:
        bench.step(bench.model(), bench.optimizer(), batch)
        return batch
    except SubjectFault:
        full, columns = train_epoch(bench).batches[0].shape
        return rows.rows(np.arange(full) % min(4, rows.shape[0])).cut(columns)


def _small(bench: Bench, batch: HostBatch) -> HostBatch:
    """A batch cut so that a step on it is cheap: fewer rows, then shorter ones."""
    rows = min(batch.shape[0], bench.stories)
    width = max(16, _CHEAP // (rows * bench.subject.vocab_size))
    batch = batch.rows(slice(0, rows))
    return batch.cut(width) if width < batch.shape[1] else batch


def probe_batch(bench: Bench, index: int) -> HostBatch:
    """One of several small batches of different rows."""
    minimal, rows = minimal_batch(bench), sample(bench)
    count = minimal.shape[0]
    return rows.rows((np.arange(count) + index * count) % rows.shape[0]).cut(minimal.shape[1])
