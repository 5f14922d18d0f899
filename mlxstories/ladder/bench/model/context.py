"""How much of its own past each position sees."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.nn as nn
import numpy as np

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.model.consistency import ask, noised, short
from mlxstories.ladder.bench.model.dependence import different
from mlxstories.ladder.bench.samples import sample

_SIZE, _LARGE, _SIZE_OF_LARGE = 32, 8192, 16  # positions, fewer where the vocabulary is large
_SHUFFLED = (
    3  # rows of the subject's ids in other orders: a separator that hides a past stands elsewhere in each
)
_AT_ONCE = 8


@dataclass(frozen=True)
class Context:
    """How changes of single tokens move later positions; the largest over several rows.

    Attributes:
        past: for each position but the first, the largest change by an earlier token, relative to the median of these.
        near: mean change by tokens of the nearest quarter, relative to that by tokens of the farthest quarter.
        size: positions looked at.
    """

    past: list[float]
    near: float
    size: int


@measurement
def context(bench: Bench) -> Context | None:
    """Change each token by itself; None where rows are too short, or no position sees any past."""
    rows = _rows(bench)
    size = rows.shape[1]
    if size < 4:
        return None
    model, rng = noised(bench), np.random.default_rng((bench.seed, 23))
    tables = [_table(bench, model, row[None], rng) for row in rows]
    past = np.array([max(table[r, :r].max() for table in tables) for r in range(1, size)])
    if np.median(past) == 0:
        return None
    near = max(_near(table) for table in tables)
    return Context((past / np.median(past)).tolist(), near, size)


def _rows(bench: Bench) -> np.ndarray:
    """The first row, cut, and some of the subject's ids in random order."""
    size = _SIZE_OF_LARGE if bench.subject.vocab_size > _LARGE else _SIZE
    row = np.maximum(short(bench, slice(1), size).inputs, 0)
    ids, rng = np.unique(np.maximum(sample(bench).inputs, 0)), np.random.default_rng((bench.seed, 22))
    shuffled = [np.resize(rng.permutation(ids), row.shape) for _ in range(_SHUFFLED)]
    return np.concatenate([row, *shuffled])


def _table(bench: Bench, model: nn.Module, row: np.ndarray, rng) -> np.ndarray:
    """The largest change of a logit, [reader, changed]."""
    size = row.shape[1]
    before, columns = ask(bench, model, row)[0], []
    for start in range(0, size, _AT_ONCE):
        places = np.arange(start, min(size, start + _AT_ONCE))
        changed = np.repeat(row, len(places), axis=0)
        changed[np.arange(len(places)), places] = different(bench, row[0, places], rng)
        columns.append(np.abs(ask(bench, model, changed) - before).max(-1))
    return np.concatenate(columns).T


def _near(table: np.ndarray) -> float:
    """The influence of the nearest quarter of tokens relative to the farthest, over the last quarter of readers."""
    quarter = len(table) // 4
    readers = range(len(table) - quarter, len(table))
    near = np.mean([table[r, r - quarter : r].mean() for r in readers])
    far = np.mean([table[r, :quarter].mean() for r in readers])
    return float(near / far) if far > 0 else float("inf")
