"""Which logits a loss pairs with a target: change the target of one cell, and see where the gradient at the logits
moves."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.loss.convention import gradient_at
from mlxstories.ladder.bench.samples import sample

_ROWS, _CELLS = 4, 12
_LOGITS = 1_000_000  # of the rows that are asked about, by cutting them
_LEAST = 1e-4  # of the largest gradient: more than rounding


@dataclass(frozen=True)
class Pairing:
    """Some cells, row and place, that count.

    Attributes:
        asked: cells whose target was exchanged.
        heard: where the gradient at the logits moved most; None where nowhere.
        masked: whether the target of a masked cell is heard; None where there is none.
    """

    asked: list[tuple[int, int]]
    heard: list[tuple[int, int] | None]
    masked: bool | None

    @property
    def own(self) -> float:
        """Share of the cells whose target is heard at their own logits."""
        return float(np.mean([a == h for a, h in zip(self.asked, self.heard, strict=True)]))

    @property
    def nowhere(self) -> float:
        """Share of those whose target is heard by no logits."""
        return float(np.mean([h is None for h in self.heard]))

    @property
    def offset(self) -> tuple[int, float]:
        """The commonest distance of places, within the row, from logits to the target heard there, and its share."""
        away = Counter(
            a[1] - h[1] if h is not None and h[0] == a[0] else None
            for a, h in zip(self.asked, self.heard, strict=True)
        )
        away.pop(None, None)
        most, count = away.most_common(1)[0] if away else (0, 0)
        return most, count / len(self.asked)


@measurement
def pairing(bench: Bench) -> Pairing | None:
    """Change the targets of a dozen cells one by one; None where the loss needs more of a model than logits, is random,
    or depends on none."""
    if bench.minimises_ours:
        return None
    rows = sample(bench)
    batch = rows.rows(slice(0, min(_ROWS, rows.shape[0])))
    batch = batch.cut(max(8, _LOGITS // (batch.shape[0] * bench.subject.vocab_size)))
    plain = gradient_at(bench, batch)
    if plain is None or not np.abs(plain).max():
        return None
    again = gradient_at(bench, batch)
    if again is None or not np.array_equal(plain, again):
        return None
    real, rng = (batch.mask > 0) & (batch.targets >= 0), np.random.default_rng((bench.seed, 83))
    asked = [tuple(map(int, cell)) for cell in rng.permutation(np.argwhere(real))[:_CELLS]]
    heard = [_heard(bench, batch, plain, cell) for cell in asked]
    hidden = np.argwhere((batch.mask == 0) & (batch.targets >= 0))
    masked = _heard(bench, batch, plain, tuple(map(int, hidden[0]))) is not None if len(hidden) else None
    return Pairing(asked, heard, masked) if asked else None


def _heard(
    bench: Bench, batch: HostBatch, plain: np.ndarray, cell: tuple[int, int]
) -> tuple[int, int] | None:
    targets = batch.targets.copy()
    targets[cell] = (targets[cell] + 1) % bench.subject.vocab_size
    other = gradient_at(bench, batch.with_(targets=targets))
    if other is None:
        return cell  # an id that the loss does not take is no sign of anything
    moved = np.abs(other - plain).max(-1)
    if moved.max() <= _LEAST * np.abs(plain).max():
        return None
    row, place = np.unravel_index(int(moved.argmax()), moved.shape)
    return int(row), int(place)
