"""The losses that a script computes outside of gradients, as where it validates."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import mlx.core as mx
import numpy as np

from mlxstories.ladder.bench.evaluation.averages import Cells
from mlxstories.ladder.capture.copies import host, whole
from mlxstories.ladder.capture.places import near
from mlxstories.ladder.where.places import Line, stack, user_frames

_CELLS = 4_000_000  # that are kept


@dataclass
class Pass:
    """One cross-entropy outside of gradients.

    Attributes:
        values: nats, flat nats and hits of each cell, [3, B, T].
        inputs: the ids that the model was given there, [B, T], or None where they are not known.
        targets: [B, T].
        mask: the weights that the script gives to the cells, [B, T], or None where none were at hand.
        lines: the user's, the outermost first.
        precise: whether the logits are not of 16 bits.
    """

    values: np.ndarray
    inputs: np.ndarray | None
    targets: np.ndarray
    mask: np.ndarray | None
    lines: list[Line]
    precise: bool

    def cells(self, padding: int | None) -> Cells:
        """Its cells, real where the mask or, without one, the training's own padding says so."""
        real = (self.targets >= 0) & (self.mask if self.mask is not None else self.targets != padding)
        return Cells(self.values.astype(np.float64), real)


@dataclass
class Evaluation:
    """Losses with no gradient between them, and what was printed from then until the second gradient after them."""

    passes: list[Pass] = field(default_factory=list)
    start: int = 0
    end: int | None = None
    gradients: int = 0


def passed(logits: Any, targets: Any, weights: Any, given: mx.array | None, frame: FrameType) -> Pass | None:
    """One cross-entropy as it was called; None where its targets are no ids.

    Args:
        logits: [..., V].
        targets: ids, [...].
        given: the ids [B, T] that the model was called with last, if they are known.
        frame: the caller's, whose mask may lie beside.
    """
    if not isinstance(targets, mx.array) or not mx.issubdtype(targets.dtype, mx.integer):
        return None
    if not targets.size or targets.shape != logits.shape[:-1]:
        return None
    precise = logits.dtype == mx.float32
    logits, ids = logits.astype(mx.float32), targets.astype(mx.int64)
    inside = (ids >= 0) & (ids < logits.shape[-1])
    total = mx.logsumexp(logits, axis=-1)
    own = mx.take_along_axis(logits, mx.where(inside, ids, 0)[..., None], axis=-1).squeeze(-1)
    flat = total - logits.mean(axis=-1)
    values = np.array(mx.stack([total - own, flat, (mx.argmax(logits, -1) == ids).astype(mx.float32)]))
    alike = given is not None and given.ndim == 2 and given.size == targets.size
    rows = targets.shape if targets.ndim == 2 else given.shape if alike else (1, targets.size)
    targets = np.array(mx.where(inside, ids, -1).astype(mx.int32)).reshape(rows)
    mask = _mask(weights, frame, targets)
    return Pass(
        values.reshape(3, *rows),
        _inputs(given, targets),
        targets,
        mask,
        stack(frame),
        precise,
    )


def _inputs(given: mx.array | None, targets: np.ndarray) -> np.ndarray | None:
    """Of the ids that the model was given, those that the targets belong to: all, or all but the last of each row."""
    if given is None or not whole(given):
        return None
    ids = host(given)
    if ids.shape == targets.shape:
        return ids
    if ids.shape != (targets.shape[0], targets.shape[1] + 1):
        return None
    return ids[:, :-1] if ((ids[:, 1:] == targets) | (targets < 0)).all() else None


def following(frame: FrameType | None, ids: mx.array) -> np.ndarray | None:
    """The tokens after ``ids`` [B, T], where the user's frames have them at hand: as targets, or in rows of T + 1."""
    given = host(ids)
    if given.ndim != 2 or given.shape[1] < 2:
        return None
    for own in user_frames(frame):
        for array in [item for value in own.f_locals.values() for item in near(value)]:
            found = _after(given, array) if whole(array) else None
            if found is not None:
                return found
    return None


def _after(ids: np.ndarray, array: Any) -> np.ndarray | None:
    rows, length = ids.shape
    if array.shape == (rows, length + 1):
        tokens = host(array)
        return tokens[:, 1:] if (tokens[:, :-1] == ids).all() else None
    if array.size != ids.size:
        return None
    targets = host(array).reshape(ids.shape)
    shifted = (targets[:, :-1] == ids[:, 1:]) | (targets[:, :-1] < 0)
    return targets if shifted.all() and not (targets == ids).all() else None


def _mask(weights: Any, frame: FrameType, targets: np.ndarray) -> np.ndarray | None:
    """Which targets [B, T] count: by weights of 0 and 1 that are handed over or in sight of the call, or by labels
    there of which the targets were made, below 0 where one does not count."""
    seen = [
        value for value in (weights, *frame.f_locals.values()) if isinstance(value, (mx.array, np.ndarray))
    ]
    for value in seen:
        if value.size == targets.size:
            array = host(value)
            if set(np.unique(array)) == {0, 1}:
                return (array > 0).reshape(targets.shape)
    for value in seen:
        labels = _labels(value, targets.shape)
        if labels is not None and (labels < 0).any() and ((labels == targets) | (labels < 0)).all():
            return labels >= 0
    return None


def _labels(value: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """An array of as many cells, or of rows of one token more, without the first."""
    rows, cells = host(value), shape[0] * shape[1]
    if rows.size == cells:
        return rows.reshape(shape)
    longer = rows.ndim == 2 and len(rows) * (rows.shape[1] - 1) == cells
    return rows[:, 1:].reshape(shape) if longer else None


class Evaluations:
    """Collects the losses of a script between its gradients, as long as it is ``open``; ``taken`` so far."""

    def __init__(self):
        self.all: list[Evaluation] = []
        self.open, self._cells = True, 0
        self.taken = 0
        self._by_hand: tuple[mx.array, np.ndarray, mx.array, FrameType, int] | None = None

    @property
    def whole(self) -> bool:
        """Whether none was left out because there were too many."""
        return self._cells < _CELLS

    def forward(self, logits: mx.array, ids: mx.array, frame: FrameType, position: int) -> None:
        """A call of the model [B, T] to [B, T, V], of which the script may take a cross-entropy of its own writing."""
        self.settle()
        targets = following(frame, ids)
        if targets is not None:
            self._by_hand = logits, targets, ids, frame, position

    def settle(self) -> None:
        """No cross-entropy of MLX's has followed the last call of the model: its loss is computed for the script."""
        if self._by_hand is None:
            return
        logits, targets, ids, frame, position = self._by_hand
        new = passed(logits, mx.array(targets), None, ids, frame)
        if new is not None:
            self.add(new, position)
        self._by_hand = None

    def add(self, new: Pass, position: int) -> None:
        """One more loss, with the length of the log before it."""
        self._by_hand = None
        self.taken += 1
        self._cells += new.targets.size
        self.open = self.whole
        if not self.all or self.all[-1].gradients:
            self.all.append(Evaluation(start=position))
        self.all[-1].passes.append(new)

    @property
    def waiting(self) -> bool:
        """Whether what is printed still belongs to the last ones."""
        return bool(self.all) and self.all[-1].end is None

    def gradient(self, position: int) -> None:
        """A gradient is taken."""
        self.settle()
        if not self.waiting:
            return
        last = self.all[-1]
        last.gradients += 1
        if last.gradients == 2:
            last.end = position
