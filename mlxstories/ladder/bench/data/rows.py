"""What the rows of the batches hold: ids, targets, and padding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.epochs import epochs

_SEARCHED = 8  # batches that are searched for targets of other rows
_SEAM_CELLS, _SEAM_SAME = 0.25, 0.98  # at most so many cells are seams, and so many of them share one token


@dataclass(frozen=True)
class Outsiders:
    """Ids outside the vocabulary on one side of a batch.

    Attributes:
        source: the field of the subject.
        batch: its index in the epoch.
        side: "inputs" or "targets".
        first: the first such id.
        highest: the highest.
        cells: how many cells hold one.
    """

    source: str
    batch: int
    side: str
    first: int
    highest: int
    cells: int


@measurement
def outsiders(bench: Bench) -> list[Outsiders]:
    """Ids for which a lookup would read outside the tables; negative ones count where they are real, or where they lie
    too far below 0 even to count from the end."""
    found = []
    for source, epoch in epochs(bench):
        for index, batch in enumerate(epoch.batches):
            for side in ("inputs", "targets"):
                ids = _outside(batch, side, bench.subject.vocab_size)
                if len(ids):
                    found.append(Outsiders(source, index, side, int(ids[0]), int(ids.max()), len(ids)))
    return found


def _outside(batch: HostBatch, side: str, size: int) -> np.ndarray:
    ids, real = getattr(batch, side), batch.mask > 0
    wrong = (ids >= size) | ((ids < 0) & real) | (ids < -size)
    return ids[wrong & real] if side == "targets" else ids[wrong]


@dataclass(frozen=True)
class Alignment:
    """Where the targets stand among the inputs.

    Attributes:
        rates: shift k to the share of real cells whose target is the input k places on.
        cells: how many cells were compared for the right shift, 1.
        swapped: share of rows whose targets are the inputs of another row, one place on.
        clipped: the highest target, and the inputs above it whose target is that highest one.
    """

    rates: dict[int, float]
    cells: int
    swapped: float
    clipped: tuple[int, np.ndarray]

    @property
    def best(self) -> int:
        return max(self.rates, key=self.rates.get)


@measurement
def alignments(bench: Bench) -> dict[str, Alignment]:
    """Where the targets stand, in training and, where there is any, in validation."""
    return {
        source: Alignment(
            *shift_rates(epoch.batches), _swapped(epoch.batches), _clipped(*_pairs(epoch.batches, 1))
        )
        for source, epoch in epochs(bench)
    }


def shift_rates(
    batches: list[HostBatch], shifts: Sequence[int] = range(-3, 5)
) -> tuple[dict[int, float], int]:
    """For each shift k, the share of real cells whose target is the input k places on, and the cells counted for 1.
    Only cells whose neighbour is real too count, and the one kind of seam between documents does not."""
    rates, counted = {}, 0
    for k in shifts:
        target, following = _pairs(batches, k)
        hits, count = int((target == following).sum()), len(target)
        if k == 1:
            off = target != following
            count -= _seams((target[off], following[off]), count)
            counted = count
        rates[k] = hits / max(count, 1)
    return rates, counted


def _pairs(batches: list[HostBatch], k: int) -> tuple[np.ndarray, np.ndarray]:
    """Targets, and the inputs ``k`` places on, of the cells where both are real."""
    targets, inputs = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for batch in batches:
        length = batch.shape[1]
        lo, hi = max(0, -k), min(length, length - k)
        if hi <= lo:
            continue
        real = (batch.mask[:, lo:hi] > 0) & (batch.mask[:, lo + k : hi + k] > 0)
        targets.append(batch.targets[:, lo:hi][real])
        inputs.append(batch.inputs[:, lo + k : hi + k][real])
    return np.concatenate(targets), np.concatenate(inputs)


def _clipped(targets: np.ndarray, following: np.ndarray) -> tuple[int, np.ndarray]:
    highest = int(targets.max()) if len(targets) else 0
    above = following > highest
    return highest, following[above] if (targets[above] == highest).all() else following[:0]


def _seams(missed: tuple[np.ndarray, np.ndarray], cells: int) -> int:
    """How many mismatches are documents' seams: one end token before, or one begin token after, all of them."""
    count = len(missed[0])
    if count == 0 or count > _SEAM_CELLS * cells:
        return 0
    return count if any(_commonest(side) >= _SEAM_SAME * count for side in missed) else 0


def _commonest(ids: np.ndarray) -> int:
    return int(np.unique(ids, return_counts=True)[1].max())


def _swapped(batches: list[HostBatch]) -> float:
    found = total = 0
    for batch in batches[:_SEARCHED]:
        heads = {row.tobytes() for row in batch.inputs[:, 1:]}
        found += sum(row.tobytes() in heads for row in np.ascontiguousarray(batch.targets[:, :-1]))
        total += batch.shape[0]
    return found / total


@dataclass(frozen=True)
class Filler:
    """The token that fills most real cells at the ends, or at the beginnings, of rows.

    Attributes:
        token: its id.
        cells: real cells that it fills.
        share: of all real cells.
        rows: share of rows in which it fills two cells or more.
        elsewhere: how often it is repeated elsewhere, divided by ``cells``.
    """

    token: int
    cells: int
    share: float
    rows: float
    elsewhere: float


@measurement
def fillers(bench: Bench) -> dict[str, list[Filler]]:
    """What fills the ends and the beginnings of the targets' rows, in training and in validation."""
    return {source: fillers_of(epoch.batches) for source, epoch in epochs(bench)}


def fillers_of(batches: list[HostBatch]) -> list[Filler]:
    """The token that fills the ends of these rows, and the one that fills their beginnings."""
    return [f for f in (_filler(batches, flip) for flip in (False, True)) if f is not None]


def _filler(batches: list[HostBatch], flip: bool) -> Filler | None:
    cells: Counter[int] = Counter()
    rows_with: Counter[int] = Counter()
    inside: Counter[int] = Counter()
    rows = real = 0
    for batch in batches:
        rows, real = rows + batch.shape[0], real + int((batch.mask > 0).sum())
        for token, filled, repeated in _runs(batch, flip):
            cells[token] += filled
            rows_with[token] += filled >= 2
            inside.update(repeated)
    if not real:
        return None
    token, filled = cells.most_common(1)[0]
    return Filler(token, filled, filled / real, rows_with[token] / rows, inside[token] / max(filled, 1))


def _runs(batch: HostBatch, flip: bool) -> Iterator[tuple[int, int, list[int]]]:
    """For each row its last token, the real cells that its run fills, and what is repeated before the run."""
    ids, mask = batch.targets, batch.mask > 0
    if flip:
        ids, mask = ids[:, ::-1], mask[:, ::-1]
    runs = np.cumprod((ids == ids[:, -1:])[:, ::-1], axis=1).sum(1)
    for row, run, real in zip(ids, runs, mask, strict=True):
        inner = row[: len(row) - run]
        # The first of a run may be a true end of story; a row of one token alone is no padding.
        filled = int(real[len(row) - run + 1 :].sum()) if len(inner) else 0
        yield int(row[-1]), filled, inner[1:][inner[1:] == inner[:-1]].tolist()
