"""Fields of a dictionary batch beside inputs, targets and mask, which are cut and joined along with the rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import numpy as np

KEYS = ("inputs", "targets", "mask")


@dataclass(frozen=True)
class ExtraFields:
    """A further field of a batch that is a dictionary, such as lengths [B] or segments [B, T].

    Attributes:
        array: its numbers.
        rows: whether its first axis is the batch's rows.
        columns: which of its axes are the batch's columns.
        mask: whether it is a copy of the mask.
        beyond: where it counts the real cells of each row, what it adds to them; else None.
    """

    array: np.ndarray
    rows: bool
    columns: tuple[int, ...]
    mask: bool = False
    beyond: int | None = None

    def of_rows(self, index) -> ExtraFields:
        """The rows of ``index``, in this order."""
        return replace(self, array=self.array[index]) if self.rows else self

    def cut(self, length: int) -> ExtraFields:
        """The first ``length`` columns."""
        axes = range(self.array.ndim)
        return replace(
            self, array=self.array[tuple(slice(length if a in self.columns else None) for a in axes)]
        )

    def told(self, mask: np.ndarray) -> np.ndarray:
        """Its numbers; those that follow from the mask are computed for this one."""
        if self.mask:
            return mask
        return self.array if self.beyond is None else mask.sum(1) + self.beyond


def extra_fields(form: Any, mask: np.ndarray) -> dict[str, ExtraFields]:
    """The fields of a dictionary batch, beside those of every batch, that have an axis of rows or columns."""
    rows, columns = mask.shape
    found = {}
    for name, value in form.items() if isinstance(form, Mapping) else ():
        if name in KEYS or not isinstance(value, (mx.array, np.ndarray, list)):
            continue
        try:
            array = on_host(value)
        except Exception:  # a list that cannot be an array
            continue
        by_rows = array.shape[:1] == (rows,)
        axes = range(1 if by_rows else 0, array.ndim)
        by_columns = tuple(axis for axis in axes if array.shape[axis] == columns)
        one = ExtraFields(array, by_rows, by_columns, np.array_equal(array, mask), _beyond(array, mask))
        if one.rows or one.columns:
            found[name] = one
    return found


def _beyond(array: np.ndarray, mask: np.ndarray) -> int | None:
    if array.shape != mask.shape[:1] or array.dtype.kind not in "iuf":
        return None
    apart = array - mask.sum(1)
    return int(apart[0]) if (apart == apart[0]).all() and abs(apart[0]) <= 1 else None


def joined_fields(parts: list[ExtraFields]) -> ExtraFields:
    """One field of several batches, as of all their rows."""
    first = parts[0]
    if not first.rows:
        return first
    return replace(
        first,
        array=np.concatenate([part.array for part in parts]),
        mask=all(part.mask for part in parts),
        beyond=first.beyond if len({part.beyond for part in parts}) == 1 else None,
    )


def on_host(value: Any) -> np.ndarray:
    """An array of any kind as numpy's."""
    if isinstance(value, mx.array) and value.dtype == mx.bfloat16:  # which numpy does not have
        value = value.astype(mx.float32)
    return np.array(value)
