"""How much of its rows training asks for, and how much validation does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.epoch import Epoch
from mlxstories.ladder.bench.epochs import train_epoch, val_epoch

_BATCHES = 64  # that are read


@dataclass(frozen=True)
class Counted:
    """What counts in the rows of an epoch, means over the rows.

    Attributes:
        stretches: of targets that count, parted by such as do not.
        share: of the row's cells without the padding at its end.
        rows: in which anything counts.
    """

    stretches: float
    share: float
    rows: int


@measurement
def counted(bench: Bench) -> tuple[Counted, Counted] | None:
    """What counts in training and in validation; None without validation, or where nothing counts in one of them."""
    val = val_epoch(bench)
    found = (_counted(train_epoch(bench)), _counted(val)) if val is not None else ()
    return found if len(found) == 2 and all(each.rows for each in found) else None


def _counted(epoch: Epoch) -> Counted:
    stretches, shares = [], []
    for batch in epoch.batches[:_BATCHES]:
        real = batch.mask > 0
        begins = real & ~np.pad(real, ((0, 0), (1, 0)))[:, :-1]
        # Of the padding the first cell may hold the end token.
        filled = np.cumprod((~real & (batch.targets == batch.targets[:, -1:]))[:, ::-1], axis=1).sum(1)
        counting = real.any(1)
        stretches.append(begins.sum(1)[counting])
        shares.append((real.sum(1) / (real.shape[1] - filled).clip(1))[counting])
    stretches, shares = np.concatenate(stretches), np.concatenate(shares)
    return Counted(
        *(float(each.mean()) if len(each) else 0.0 for each in (stretches, shares)), len(stretches)
    )
