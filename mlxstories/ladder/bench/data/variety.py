"""How much of what training reads is different: batches and rows of an epoch, neighbours, another epoch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.epochs import second_epoch, train_epoch

_COMPARED = 64  # batches of two epochs
_NEAR = 8  # batches or tokens on
_BATCHES_OF_ROWS = 4  # different ones, from which chance brings few rows twice in a row


@dataclass(frozen=True)
class Variety:
    """How much of the first epoch of training is different.

    Attributes:
        batches, distinct: batches, and how many of them differ.
        rows, distinct_rows: rows, and how many of them differ.
        uniform: share of batches that are one row repeated.
        token, share: the commonest target, and its share of all that count.
        two: the share of the two commonest ones.
    """

    batches: int
    distinct: int
    rows: int
    distinct_rows: int
    uniform: float
    token: int
    share: float
    two: float


@measurement
def _row_keys(bench: Bench) -> list[list[bytes]]:
    """The rows of each batch of the first epoch, such that equal ones are equal."""
    return [[row.tobytes() for row in batch.inputs] for batch in train_epoch(bench).batches]


@measurement
def variety(bench: Bench) -> Variety:
    """How much of the first epoch is different."""
    batches = train_epoch(bench).batches
    rows = _row_keys(bench)
    uniform = sum(len(set(keys)) == 1 and len(keys) > 1 for keys in rows) / len(batches)
    every = [key for keys in rows for key in keys]
    distinct = len({_key(b) for b in batches})
    return Variety(len(batches), distinct, len(every), len(set(every)), uniform, *_commonest(batches))


def _commonest(batches: list[HostBatch]) -> tuple[int, float, float]:
    ids, counts = np.unique(np.concatenate([b.targets[b.mask > 0] for b in batches]), return_counts=True)
    shares = np.sort(counts)[::-1] / counts.sum()
    return int(ids[counts.argmax()]), float(shares[0]), float(shares[:2].sum())


@dataclass(frozen=True)
class Neighbours:
    """How much consecutive rows and batches are alike.

    Attributes:
        delivered_again: share of batches that one of the next eight repeats.
        moved_on: share of rows that are the row before, moved on by a few tokens.
        by: the commonest number of these tokens.
        rows: that were compared.
        batch_moved_on, batch_by: the same of rows at one place of a batch and of the next.
        carried_over: share of the rows of a batch that the next one holds too, where the epoch has so many rows that
            a draw with replacement would give it a quarter at most.
    """

    delivered_again: float
    moved_on: float
    by: int
    rows: int
    batch_moved_on: float = 0.0
    batch_by: int = 0
    carried_over: float = 0.0


@measurement
def neighbours(bench: Bench) -> Neighbours:
    """Compare each batch of the first epoch with those after it, and each row with the next of its batch."""
    batches = train_epoch(bench).batches
    keys = [_key(batch) for batch in batches]
    again = [key in keys[i + 1 : i + 1 + _NEAR] for i, key in enumerate(keys)]
    within = [(batch.inputs[:-1], batch.inputs[1:]) for batch in batches[:_COMPARED]]
    across = [
        (one.inputs, other.inputs) for one, other in pairwise(batches[:_COMPARED]) if one.shape == other.shape
    ]
    rows = sum(len(one) for one, _ in within)
    return Neighbours(
        sum(again) / len(again), *_shift(within), rows, *_shift(across), _carried_over(_row_keys(bench))
    )


def _carried_over(rows: list[list[bytes]]) -> float:
    if len({key for keys in rows for key in keys}) < _BATCHES_OF_ROWS * max(map(len, rows)):
        return 0.0
    held = [key in other for keys, following in pairwise(rows) for other in [set(following)] for key in keys]
    return float(np.mean(held)) if held else 0.0


def _shift(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, int]:
    """Share of the rows that the second array holds moved on by the commonest number of tokens, and that number."""
    by = Counter(
        k
        for ones, others in pairs
        for one, other in zip(ones, others, strict=True)
        for k in _moved_on(one, other)
    )
    shift, count = by.most_common(1)[0] if by else (0, 0)
    return count / max(sum(len(ones) for ones, _ in pairs), 1), shift


def _moved_on(row: np.ndarray, following: np.ndarray) -> list[int]:
    """By how many tokens the second row is the first moved on, if it is."""
    shifts = range(1, min(_NEAR, len(row) // 4) + 1)
    return next(([k] for k in shifts if np.array_equal(row[k:], following[: len(row) - k])), [])


@measurement
def same_again(bench: Bench) -> bool | None:
    """Whether the second epoch brings the first one's batches in the same order; None where it brings nothing."""
    first, second = train_epoch(bench).batches, second_epoch(bench).batches[:_COMPARED]
    return [_key(b) for b in second] == [_key(b) for b in first[: len(second)]] if second else None


def _key(batch: HostBatch) -> bytes:
    return batch.inputs.tobytes() + batch.targets.tobytes()
