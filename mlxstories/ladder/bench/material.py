"""What is trained and looked at on the bench: the subject's batches, cut to size."""

from __future__ import annotations

import numpy as np

from mlxstories.ladder.bench.batches import HostBatch, joined
from mlxstories.ladder.bench.bench import Bench, SubjectFault, measurement
from mlxstories.ladder.bench.epoch import Epoch, raw_epoch, read
from mlxstories.ladder.bench.loss.convention import convention

_CHEAP = 1_200_000  # logits of a step on the bench
_ROWS = 64  # distinct rows that are looked at


@measurement
def train_epoch(bench: Bench) -> Epoch:
    """The first epoch of training.

    Raises:
        SubjectFault: there is nothing in it to train on.
    """
    return raw_epoch(bench).by(convention(bench))


@measurement
def val_epoch(bench: Bench) -> Epoch | None:
    """The validation batches, where the subject has some.

    Raises:
        SubjectFault: there are none in it.
    """
    if bench.subject.val_batches is None:
        return None
    epoch = read(bench, "val_batches()", bench.subject.val_batches)
    if not epoch.batches:
        raise bench.fault("val_batches() yields no batch", "yield at least one batch")
    return epoch.by(convention(bench))


@measurement
def val_again(bench: Bench) -> bool | None:
    """Whether validation can be read a second time; None where there is none."""
    if val_epoch(bench) is None:
        return None
    with bench.calling("val_batches()"):
        return next(iter(bench.subject.val_batches()), None) is not None


@measurement
def second_epoch(bench: Bench) -> Epoch:
    """What training reads next, with the seed after the first epoch's; possibly nothing."""
    seed = bench.seed + 1
    epoch = read(bench, f"train_batches({seed})", lambda: bench.subject.train_batches(seed))
    return epoch.by(convention(bench))


def whole_epochs(bench: Bench) -> list[Epoch] | None:
    """The first and the second epoch of training; None where either is empty or was not read to its end."""
    found = [train_epoch(bench), second_epoch(bench)]
    return found if all(epoch.batches and epoch.complete for epoch in found) else None


def epoch_steps(bench: Bench) -> int | None:
    """Batches of an epoch of training, where all of them were read."""
    epoch = train_epoch(bench)
    return len(epoch.batches) if epoch.complete else None


def epochs(bench: Bench) -> list[tuple[str, Epoch]]:
    """Training and, where there is any, validation, by the field's name."""
    val = val_epoch(bench)
    return [("train_batches", train_epoch(bench))] + ([("val_batches", val)] if val else [])


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
