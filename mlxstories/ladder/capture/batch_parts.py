"""Which part of a batch an array is, judged by what the model read and what the loss asked for."""

from __future__ import annotations

import numpy as np

from mlxstories.ladder.capture.copies import whole
from mlxstories.ladder.capture.reading import Reading


class BatchParts:
    """Recognises the inputs, targets, mask, tokens, labels, lengths or spans of a batch that was read.

    Args:
        first: what was read.
        cut: the model reads a whole row, and the loss leaves out what it says of the last place.

    Attributes:
        unread: padding of the inputs, and what the model reads instead; None where it reads them as they are.
        extra: of a length, over the cells that are read.
        pad_input: the input behind the length of a row.
        apart: of spans, from the first and the last cell that counts.
    """

    def __init__(self, first: Reading, cut: bool):
        self.first, self.cut = first, cut
        self.unread: tuple[int, int] | None = None
        self.extra = 1
        self.pad_input: int | None = None
        self.apart: np.ndarray | None = None

    def of(self, array: np.ndarray) -> str | None:
        """The part that an array is, if any."""
        if array.ndim not in (1, 2) or not array.size:
            return None
        m = self.first.mask
        role = (self._cells(array) or self._rows(array)) if whole(array) else None
        if role is None and set(np.unique(array)) <= {0, 1}:
            if array.size == m.size:
                role = "mask" if self._mask(array.reshape(m.shape)) else None
            elif array.shape == (m.shape[0], m.shape[1] + 1):  # of whole rows: the loss cuts both
                role = "row mask" if self._mask(array[:, 1:]) else None
        return role

    def _cells(self, array: np.ndarray) -> str | None:
        """The part that an array of ids plays: inputs, targets, or tokens of which both are cut."""
        x, y, counted = self.first.inputs, self.first.targets, self.first.mask > 0
        if array.size == y.size and _taught(array.reshape(y.shape)[counted], y[counted]):
            same = array.reshape(x.shape) == x
            return "inputs" if same.all() and not (x == y).all() else "targets"
        if array.size == x.size and self._read(array.reshape(x.shape)):
            return "inputs"
        wide = array.shape == (x.shape[0], x.shape[1] + 1)
        if wide and (array[:, :-1] == x).all() and _taught(array[:, 1:][counted], y[counted]):
            return "tokens"
        if self.cut and wide:
            if (array[:, :-1] == x).all():
                return "tokens"
            return "labels" if _taught(array[:, 1:][counted], y[counted]) else None
        return None

    def _read(self, array: np.ndarray) -> bool:
        """Whether the model reads these ids, or the loss first replaces those that its table does not have."""
        x, missing = self.first.inputs, self.missing(array)
        if not (array == x)[~missing].all() or missing.all():
            return False
        if (array != x).any():
            self.unread = (int(array[missing][0]), int(x[missing][0]))
        return True

    def missing(self, ids: np.ndarray) -> np.ndarray:
        return (ids < 0) | (ids >= self.first.vocab)

    def _rows(self, array: np.ndarray) -> str | None:
        """The part that a number or a pair for each row plays: lengths, or spans of counted cells."""
        x, m = self.first.inputs, self.first.mask
        if array.shape == x.shape[:1] and self._lengths(array):
            return "lengths"
        if array.shape == (len(x), 2) and m.any() and self._spans(array):
            return "spans"
        return None

    def _mask(self, array: np.ndarray) -> bool:
        """A mask that the loss follows, or one of cells that all look like padding."""
        left_out = self.first.inputs[array == 0]
        return ((array > 0) == (self.first.mask > 0)).all() or len(np.unique(left_out)) <= 1

    def _lengths(self, array: np.ndarray) -> bool:
        x, m = self.first.inputs, self.first.mask
        rest = [row[n:] for row, n in zip(x, array, strict=True) if 0 < n < len(row)]
        if not rest or len(np.unique(np.concatenate(rest))) != 1 or (array > x.shape[1] + 1).any():
            return False
        self.extra = int(np.median(array - m.sum(1))) if (m == 0).any() else 1
        self.pad_input = int(rest[0][0])
        return True

    def _spans(self, array: np.ndarray) -> bool:
        """The first and last cell that counts in each row, but for a constant."""
        some = self.first.mask.any(1)  # a row may be cut off before its answer begins
        apart = array[some] - ends_of(self.first.mask[some])
        self.apart = np.median(apart, axis=0).astype(np.int64)
        return bool(((apart == self.apart).mean(0) >= 0.5).all())


def _taught(array: np.ndarray, targets: np.ndarray) -> bool:
    """Whether a loss that was handed these targets teaches those; a negative one is another id to it, if any."""
    known = array >= 0
    return bool(known.any() and (array == targets)[known].all())


def ends_of(mask: np.ndarray) -> np.ndarray:
    """Index of the first and the last cell that counts, [B, 2]; of a row in which none does, the wrong way round."""
    counted, last = mask > 0, mask.shape[1] - 1
    ends = np.stack([counted.argmax(1), last - counted[:, ::-1].argmax(1)], axis=1)
    return np.where(counted.any(1)[:, None], ends, (last + 1, -1))
