"""Windows of tokens that validation shares with training; rows that continue each other are joined before counting."""

from __future__ import annotations

import numpy as np

from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.data.hashing import among, rolling

_WINDOW = 32  # tokens that two different stories practically never share
_SHORTEST = 8  # tokens of a row that is looked at
_TRIED = 8  # rows that a row may continue, at most
_SLIDING = 0.7  # of the rows continue others: they slide; fewer do where texts repeat
_SURE = 0.5  # of those that would continue another for long do: phrases soon part
_DRAWN = 10  # rows that continue others are enough to see by how much they are moved on


def window_overlap(train: list[HostBatch], val: list[HostBatch]) -> tuple[float, float]:
    """Share of validation windows of 32 tokens (at most two thirds of a row, and 8 at the least) that occur in
    training, and the share of training's own that occur there in more than one place.

    Rows that slide over one text, or are drawn from it at random, overlap, and each stretch of it stands in several of
    them: that is one place.
    """
    train, val = ([b for b in batches if b.shape[1] >= _SHORTEST] for batches in (train, val))
    if not train or not val:
        return 0.0, 0.0
    length = min(_WINDOW, max(_SHORTEST, min(batch.shape[1] for batch in (*train, *val)) * 2 // 3))
    seen, asked = _Windows(train, length), _Windows(val, length)
    if not len(asked.hashes) or len(seen.ids) < 2:
        return 0.0, 0.0
    return float(among(asked.once_a_row(), seen.hashes).mean()), seen.repeated()


class _Windows:
    """The real windows of rows: their hashes, the row and the place of each; and the ids of the rows."""

    def __init__(self, batches: list[HostBatch], length: int):
        parts, self.ids = [], []
        for batch in batches:
            hashes = rolling(batch.inputs, length)
            real = np.lib.stride_tricks.sliding_window_view(batch.mask > 0, length, axis=1).all(axis=-1)
            rows, places = np.nonzero(real)
            parts.append((hashes[rows, places], rows + len(self.ids), places))
            self.ids += list(batch.inputs)
        self.hashes, self.rows, self.places = (np.concatenate(part) for part in zip(*parts, strict=True))
        self.length = length

    def once_a_row(self) -> np.ndarray:
        """The hashes, each once for each row that holds it."""
        return self.hashes[_first_of(self.hashes, self.rows)]

    def repeated(self) -> float:
        """Share of the places of the texts that the rows make up whose window stands at another place too."""
        if not len(self.hashes):
            return 0.0
        text, begins = self._texts()
        place = text[self.rows] * 2**32 + begins[self.rows] + self.places
        known = self.hashes[_first_of(self.hashes, place)]
        _, which, counts = np.unique(known, return_inverse=True, return_counts=True)
        return float((counts[which] > 1).mean())

    def _texts(self) -> tuple[np.ndarray, np.ndarray]:
        """The text that each row is a piece of, by the number of one of its rows, and where in it the row begins; rows
        that neither slide over a text nor are drawn from one are texts of their own."""
        text, begins = np.arange(len(self.ids)), np.zeros(len(self.ids), np.int64)
        members = {row: [row] for row in range(len(self.ids))}
        order = np.argsort(self.hashes, kind="stable")
        hashes, known, moves, long = self.hashes[order], 0, [], []
        for first in np.flatnonzero(self.places == 0):
            row = int(self.rows[first])
            left, right = (np.searchsorted(hashes, self.hashes[first], side) for side in ("left", "right"))
            known += right - left > 1
            for other in order[left:right][:_TRIED]:
                before, at = int(self.rows[other]), int(self.places[other])
                if not at or text[before] == text[row]:
                    continue
                continues = self._continues(before, at, row)
                if at <= (len(self.ids[before]) - self.length) // 2:
                    long.append(continues)
                if continues:
                    moved, shift = members.pop(text[row]), begins[before] + at - begins[row]
                    begins[moved] += shift
                    members[text[before]] += moved
                    text[moved] = text[before]
                    moves.append(at)
        slides = len(moves) >= _SLIDING * len(text)
        # A text that is told twice is moved on by the same number throughout, and phrases end within rows.
        drawn = len(moves) >= max(_DRAWN, _SLIDING * known, 2 * np.bincount(moves or [0]).max())
        if not (slides or (drawn and sum(long) >= _SURE * len(long))):
            return np.arange(len(self.ids)), np.zeros(len(self.ids), np.int64)
        return text, begins

    def _continues(self, before: int, at: int, row: int) -> bool:
        rest = self.ids[before][at:]
        return np.array_equal(rest, self.ids[row][: len(rest)])


def _first_of(hashes: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Indices of the first of each different pair."""
    with np.errstate(over="ignore"):
        pairs = hashes * np.uint64(0x2545F4914F6CDD1D) + places.astype(np.uint64) * np.uint64(
            0x9E3779B97F4A7C15
        )
    return np.unique(pairs, return_index=True)[1]
