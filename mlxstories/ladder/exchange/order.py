"""Whether batches are as mixed as chance would make them, and the same rows in a new order."""

from __future__ import annotations

from collections import Counter

import numpy as np

from mlxstories.ladder.bench import Bench, measurement
from mlxstories.ladder.bench.batches import HostBatch, joined
from mlxstories.ladder.exchange.material import material

_BUCKETS = 64  # that ids are counted in
_BLOCK, _FEWEST = 16, 8  # rows looked at together, and how many blocks at least
_SHUFFLES = 100
_SORTED = 6.0  # standard deviations from what shuffles give


@measurement
def shuffled(bench: Bench) -> list[HostBatch] | None:
    """As many batches as the exchange trains on, of the epoch's rows in a new order; None where their own order is as
    good as chance, or that cannot be told."""
    found = material(bench)
    shape = Counter(batch.shape for batch in found.epoch).most_common(1)[0][0]
    alike = [batch for batch in found.epoch if batch.shape == shape]
    rows = shape[0]
    if len(alike) * rows < _FEWEST * _BLOCK or _order(alike) < _SORTED:
        return None
    whole = joined(alike)
    rng = np.random.default_rng((bench.seed, 53))
    drawn: list[HostBatch] = []
    while len(drawn) < found.updates:
        new = rng.permutation(len(alike) * rows).reshape(len(alike), rows)
        drawn += [whole.rows(index) for index in new]
    return drawn[: found.updates]


def _order(batches: list[HostBatch]) -> float:
    """By how many standard deviations the contents of blocks of rows differ more than those of shuffled rows do.

    The content of a row is how many of its real tokens fall into each bucket of ids.
    """
    real = np.concatenate([np.where(b.mask > 0, b.inputs % _BUCKETS, _BUCKETS) for b in batches])
    counts = np.stack([np.bincount(row, minlength=_BUCKETS + 1) for row in real]).astype(np.float32)
    blocks = len(counts) // _BLOCK

    def between(rows: np.ndarray) -> float:
        return float(counts[rows].reshape(blocks, _BLOCK, -1).mean(1).var(0).sum())

    rng = np.random.default_rng(0)
    everything = np.arange(blocks * _BLOCK)
    chance = [between(rng.permutation(len(counts))[: len(everything)]) for _ in range(_SHUFFLES)]
    return (between(everything) - float(np.mean(chance))) / max(float(np.std(chance)), 1e-12)
