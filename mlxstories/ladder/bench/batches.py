"""Users' batches in one form: read on the host, checked, cut to size and handed back in the form they came in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import mlx.core as mx
import numpy as np

from mlxstories.batch import Batch
from mlxstories.ladder.bench.extra_fields import KEYS, ExtraFields, extra_fields, joined_fields, on_host


class UnusableBatch(Exception):
    """A batch that is not inputs, targets and mask of one shape; the message says what is wrong with it."""


@dataclass(frozen=True)
class Convention:
    """How a subject's loss reads its targets, where it does more than follow the mask.

    Attributes:
        ignored: the target id that the loss leaves out, as if the mask were 0; a negative one stands for all negative
            ids.
        shifted: whether the loss shifts the targets itself, so that each stands beside its own token.
    """

    ignored: int | None = None
    shifted: bool = False


@dataclass(frozen=True)
class HostBatch:
    """A batch as numpy arrays, with what is needed to rebuild it in the user's form.

    Attributes:
        inputs, targets: int64 [B, T].
        mask: float32 [B, T]; all ones where the user gives none; 0 where the convention leaves a cell out.
        form: the object it was read from.
        convention: how the user's form says what counts.
        extra: other fields with an axis of rows or columns, by name.
    """

    inputs: np.ndarray
    targets: np.ndarray
    mask: np.ndarray
    form: Any
    convention: Convention = Convention()
    extra: Mapping[str, ExtraFields] = field(default_factory=dict)

    def __post_init__(self):
        ignored, shifted = self.convention.ignored, self.convention.shifted
        if ignored is None and not shifted:
            return
        mask = self.mask.copy()
        if ignored is not None:
            mask[self.targets < 0 if ignored < 0 else self.targets == ignored] = 0
        if shifted:
            mask[:, -1:] = 0  # its target is in the next row
        object.__setattr__(self, "mask", mask)

    def by(self, convention: Convention) -> HostBatch:
        """This batch, as it was read, with its targets and mask read by a convention."""
        targets, mask = self.targets, self.mask
        if convention.shifted:
            targets, mask = (np.concatenate([a[:, 1:], a[:, -1:]], axis=1) for a in (targets, mask))
        return self.with_(targets=targets, mask=mask, convention=convention)

    @property
    def shape(self) -> tuple[int, int]:
        return self.inputs.shape

    @property
    def tokens(self) -> np.ndarray:
        """The inputs and the last target, [B, T + 1]."""
        return np.concatenate([self.inputs, self.targets[:, -1:]], axis=1)

    @property
    def masked(self) -> bool:
        """Whether the user's batches can say that a cell does not count."""
        if self.convention.ignored is not None:
            return True
        return _mask_of(self.form) is not None

    def rows(self, index) -> HostBatch:
        """The rows of ``index``, in this order."""
        arrays = {name: getattr(self, name)[index] for name in KEYS}
        return self.with_(**arrays, extra={name: f.of_rows(index) for name, f in self.extra.items()})

    def cut(self, length: int) -> HostBatch:
        """The first ``length`` columns."""
        arrays = {name: getattr(self, name)[:, :length] for name in KEYS}
        return self.with_(**arrays, extra={name: f.cut(length) for name, f in self.extra.items()})

    def with_(self, **changes) -> HostBatch:
        """The batch with other arrays; its extra fields are fitted to other rows or fewer columns."""
        if self.extra and "extra" not in changes:
            rows, columns = changes.get("inputs", self.inputs).shape
            index = slice(None) if rows == self.shape[0] else np.arange(rows) % self.shape[0]
            changes["extra"] = {name: f.of_rows(index).cut(columns) for name, f in self.extra.items()}
        return replace(self, **changes)

    def device(self) -> Batch:
        """As MLX arrays; ids that must not be looked up, such as padding of -100, become 0."""
        real = self.mask > 0
        return Batch(
            mx.array(np.maximum(self.inputs, 0).astype(np.int32)),
            mx.array(np.where(real, self.targets, np.maximum(self.targets, 0)).astype(np.int32)),
            mx.array(self.mask.astype(np.float32)),
        )

    def user(self) -> Any:
        """In the user's own form: the same container with the same kinds of arrays."""
        values = (self.inputs, *self._as_told())
        if isinstance(self.form, Mapping):
            rebuilt = dict(self.form)
            rebuilt.update(
                {
                    key: _like(self.form[key], v)
                    for key, v in zip(KEYS, values, strict=True)
                    if key in self.form
                }
            )
            rebuilt.update({key: _like(self.form[key], f.told(values[-1])) for key, f in self.extra.items()})
            return rebuilt
        parts = [_like(old, new) for old, new in zip(self.form, values, strict=False)]
        if hasattr(self.form, "_fields"):
            return type(self.form)(*parts)
        return type(self.form)(parts)

    def _as_told(self) -> tuple[np.ndarray, np.ndarray]:
        """Targets and mask in the user's own convention."""
        targets, mask = self.targets, self.mask
        if self.convention.ignored is not None:
            targets = np.where(mask > 0, targets, self.convention.ignored)
        if self.convention.shifted:
            targets = np.concatenate([self.inputs[:, :1], targets[:, :-1]], axis=1)
            mask = np.concatenate([np.ones_like(mask[:, :1]), mask[:, :-1]], axis=1)
        return targets, mask


def read_batch(item: Any) -> HostBatch:
    """Read one batch of the user's.

    Raises:
        UnusableBatch: it has no inputs and targets, is ragged, empty, not whole numbers, or shapes differ.
    """
    if isinstance(item, Mapping):
        missing = [key for key in KEYS[:2] if key not in item]
        if missing:
            raise UnusableBatch(f"is a dict without {missing[0]!r}; it has {sorted(map(str, item))}")
        members = [item[key] for key in KEYS if key in item]
    elif isinstance(item, (tuple, list)):
        members = list(item)
    else:
        raise UnusableBatch(f"is a {type(item).__name__}, not a Batch, a tuple or a dict")
    if not 2 <= len(members) <= 3:
        raise UnusableBatch(f"has {len(members)} members, not inputs, targets and mask")
    inputs, targets = _integers("inputs", members[0]), _integers("targets", members[1])
    told = _mask_of(item)
    mask = np.ones(inputs.shape, np.float32) if told is None else _array("mask", told).astype(np.float32)
    for name, array in (("targets", targets), ("mask", mask)):
        if array.shape != inputs.shape:
            raise UnusableBatch(
                f"has inputs of shape {list(inputs.shape)} but {name} of shape {list(array.shape)}"
            )
    if not np.isfinite(mask).all():
        raise UnusableBatch("has a mask that is not finite")
    return HostBatch(inputs, targets, mask, item, extra=extra_fields(item, mask))


def joined(batches: Sequence[HostBatch]) -> HostBatch:
    """The rows of several batches of one width in one batch."""
    first = batches[0]
    arrays = {name: np.concatenate([getattr(batch, name) for batch in batches]) for name in KEYS}
    extra = {}
    for name in first.extra:
        parts = [batch.extra[name] for batch in batches if name in batch.extra]
        if len(parts) == len(batches) and len({(part.rows, part.array.shape[1:]) for part in parts}) == 1:
            extra[name] = joined_fields(parts)
    return first.with_(**arrays, extra=extra)


def _mask_of(form: Any) -> Any:
    """The user's mask; None where there is none or it is None."""
    if isinstance(form, Mapping):
        return form.get("mask")
    return form[2] if len(form) > 2 else None


def _array(name: str, value: Any) -> np.ndarray:
    try:
        array = on_host(value)
    except Exception as error:
        raise UnusableBatch(f"has {name} that cannot be read as an array ({error})") from error
    if array.dtype == object:
        raise UnusableBatch(f"has ragged {name}: rows of different lengths")
    if array.ndim != 2:
        raise UnusableBatch(f"has {name} of shape {list(array.shape)}, not [B, T]")
    if array.size == 0:
        raise UnusableBatch(f"has empty {name} of shape {list(array.shape)}")
    return array


def _integers(name: str, value: Any) -> np.ndarray:
    array = _array(name, value)
    if not np.isfinite(array.astype(np.float64)).all():
        raise UnusableBatch(f"has {name} that are not finite")
    whole = array.astype(np.int64)
    if array.dtype.kind == "f" and (whole != array).any():
        raise UnusableBatch(f"has {name} that are not whole numbers")
    return whole


def _like(old: Any, new: np.ndarray) -> Any:
    if old is None:
        return None
    if isinstance(old, mx.array):
        return mx.array(new).astype(old.dtype)
    if isinstance(old, np.ndarray):
        return new.astype(old.dtype)
    return new.tolist()
