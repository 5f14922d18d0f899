"""How much of the training texts ever reaches a batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.data.hashing import among, rolling
from mlxstories.ladder.bench.data.texts import held, spread
from mlxstories.ladder.bench.epochs import train_epoch, whole_epochs

_LENGTH = 12  # tokens of a stretch that is looked for
_ROOM, _REAL = 3, 0.5  # stretches that a row holds, and the share of its cells that are real, at the least
_TEXTS, _STRETCHES = 256, 16  # texts that are looked at, spread over all, and stretches of each


@dataclass(frozen=True)
class Coverage:
    """Stretches of 12 tokens of the training texts that were looked for in the batches of two epochs.

    Attributes:
        first, both: share found in the first epoch, and in the first or the second.
        texts: share of the texts of which any stretch was found in either epoch.
        stretches: how many were looked for.
        rows: the most rows of a batch.
    """

    first: float
    both: float
    texts: float
    stretches: int
    rows: int


@dataclass(frozen=True)
class Searched:
    """Which stretches occur in a batch.

    Attributes:
        first, second: whether each does, in the first epoch and in the second.
        owners: for each stretch, the number of its text among those looked at.
        sizes: tokens of each text looked at, none shorter than a stretch.
    """

    first: np.ndarray
    second: np.ndarray
    owners: np.ndarray
    sizes: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """Of each text's stretches, those found in either epoch."""
        found = np.bincount(self.owners, self.first | self.second, len(self.sizes))
        return found / np.bincount(self.owners, minlength=len(self.sizes))


@measurement
def searched(bench: Bench) -> Searched | None:
    """Look for stretches of the texts in two epochs; None where these were not read to the end, or no text is long
    enough."""
    epochs = whole_epochs(bench)
    if epochs is None:
        return None
    hashes, owners, sizes = _stretches(bench)
    return (
        Searched(*(among(hashes, held(epoch, _LENGTH)) for epoch in epochs), owners, sizes)
        if len(sizes)
        else None
    )


@measurement
def coverage(bench: Bench) -> Coverage | None:
    """How many of the stretches were found; None where none was, or where rows are mostly padding and so short that
    most stretches cross the end of one."""
    found = searched(bench)
    if found is None or not found.shares.any():
        return None
    batches = train_epoch(bench).batches
    lengths = np.concatenate([(batch.mask > 0).sum(1) for batch in batches])
    cells = sum(batch.inputs.size for batch in batches)
    if np.median(lengths) < _ROOM * _LENGTH and lengths.sum() < _REAL * cells:
        return None
    both, rows = found.first | found.second, max(batch.shape[0] for batch in batches)
    return Coverage(
        float(found.first.mean()), float(both.mean()), float((found.shares > 0).mean()), len(both), rows
    )


def _stretches(bench: Bench) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hashes of stretches spread over the texts, the text of each, and the tokens of each text."""
    hashes, owners, sizes = [np.empty(0, np.uint64)], [np.empty(0, np.int64)], []
    for ids in spread(bench, _TEXTS):
        if len(ids) >= _LENGTH:
            starts = np.unique(np.linspace(0, len(ids) - _LENGTH, _STRETCHES).astype(int))
            hashes.append(rolling(np.stack([ids[s : s + _LENGTH] for s in starts]), _LENGTH)[:, 0])
            owners.append(np.full(len(starts), len(sizes)))
            sizes.append(len(ids))
    return np.concatenate(hashes), np.concatenate(owners), np.array(sizes, np.int64)
