"""Whether batches come in the order of their rows' length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.epoch import Epoch
from mlxstories.ladder.bench.epochs import whole_epochs


@dataclass(frozen=True)
class LengthOrder:
    """Batches and the mean number of real tokens of their rows.

    Attributes:
        batches: of the shorter of two epochs.
        first, second: Spearman's rank correlation of a batch's place in the epoch with its rows' mean length.
        shortest, longest: mean lengths, in the first epoch.
    """

    batches: int
    first: float
    second: float
    shortest: float
    longest: float


@measurement
def length_order(bench: Bench) -> LengthOrder | None:
    """Correlate the order of batches with their rows' length; None where an epoch was not read to the end."""
    epochs = whole_epochs(bench)
    if epochs is None:
        return None
    first, second = (_lengths(epoch) for epoch in epochs)
    return LengthOrder(
        min(len(first), len(second)), _rising(first), _rising(second), float(first.min()), float(first.max())
    )


def _lengths(epoch: Epoch) -> np.ndarray:
    return np.array([(batch.mask > 0).sum(1).mean() for batch in epoch.batches])


def _rising(values: np.ndarray) -> float:
    """Spearman's rank correlation with the order 1, 2, ...; 0 where all are equal."""
    below, equal = values[:, None] > values, values[:, None] == values
    ranks = below.sum(1) + equal.sum(1) / 2  # equal ones share a rank
    return float(np.corrcoef(ranks, np.arange(len(ranks)))[0, 1]) if np.ptp(ranks) else 0.0
