"""Validation inside a script's loop: the losses that it computes outside of gradients, and the figures that it
prints."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import exp, log
from types import FrameType
from typing import Any

import mlx.core as mx
import numpy as np

from mlxstories.ladder.bench.evaluation.averages import MEAN, Average, Cells, averages_of
from mlxstories.ladder.capture.copies import host, whole
from mlxstories.ladder.capture.places import near
from mlxstories.ladder.where.places import Line, stack, user_frames

_CELLS = 4_000_000  # that are kept
_NUMBER = re.compile(r"-?\d+\.\d+(?:[eE][+-]?\d+)?")
_HELD_OUT = re.compile(r"(?<![a-z])(val|valid\w*|eval\w*|test|dev|held\w*|perplexity|ppl)(?![a-z])", re.I)
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_OTHER = re.compile(r"train|time|took|second|sec\b|rate|lr|norm|mem|ms\b|/s|best", re.I)
_FORMS = (  # what a label promises, from an average
    (re.compile(r"perplexity|ppl", re.I), lambda average: exp(min(average.loss, 700.0))),
    (re.compile(r"bits|bpc|bpb|bpt", re.I), lambda average: average.loss / log(2)),
    (re.compile(r"acc|hits", re.I), lambda average: average.accuracy),
    (re.compile(""), lambda average: average.loss),
)
_DIGITS = 3  # decimals from which on a match is no coincidence
PART = "mean per token, divided by "
_PARTS = 16  # at most: of more, every figure is near one
_EXACT, _HALF = 1e-5, 4e-3  # of a value, in float32 and in 16 bits


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


@dataclass
class Printed:
    """A number in the log, the words before it on its line, half a unit of its last digit, and whether only the line as
    a whole speaks of held-out data."""

    label: str
    value: float
    half: float
    loose: bool = False

    @property
    def coarse(self) -> bool:
        return self.half > 0.6 * 10**-_DIGITS

    def form(self, average: Average) -> float:
        """What this label promises of an average."""
        return next(form for words, form in _FORMS if words.search(self.label))(average)


@dataclass
class Match:
    """A printed figure that is an average of losses that were seen.

    Attributes:
        way: of averaging, as `averages_of` names it.
        honest: what would have been printed per token.
        tokens: real ones in the passes.
    """

    printed: Printed
    way: str
    honest: float
    passes: list[Pass]
    tokens: int


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
    mask = _mask(weights, frame, targets.size)
    targets = np.array(mx.where(inside, ids, -1).astype(mx.int32)).reshape(rows)
    return Pass(
        values.reshape(3, *rows),
        _inputs(given, targets),
        targets,
        None if mask is None else mask.reshape(rows),
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


def _mask(weights: Any, frame: FrameType, size: int) -> np.ndarray | None:
    """Weights of 0 and 1 of as many cells: handed over, or in sight of the call."""
    for value in (weights, *frame.f_locals.values()):
        if isinstance(value, (mx.array, np.ndarray)) and value.size == size:
            array = host(value)
            if set(np.unique(array)) == {0, 1}:
                return array > 0
    return None


class Evaluations:
    """Collects the losses of a script between its gradients, as long as it is ``open``; ``taken`` so far."""

    def __init__(self):
        self.all: list[Evaluation] = []
        self.open, self._cells = True, 0
        self.taken = 0
        self._by_hand: tuple[mx.array, np.ndarray, mx.array, FrameType, int] | None = None

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
        self.open = self._cells < _CELLS
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


def matches(evaluation: Evaluation, log: str, padding: int | None) -> Iterator[Match | Printed]:
    """Figures of held-out data that were printed after an evaluation, each matched to the losses, or as it stands where
    nothing that was seen gives it."""
    groups = [(group, [p.cells(padding) for p in group]) for group in _groups(evaluation)]
    known = [
        (group, averages_of(cells), sum(int(c.real.sum()) for c in cells))
        for group, cells in groups
        if all(c.real.any() for c in cells)
    ]
    # The honest one first, of any group.
    ways = sorted(((way, *of) for of in known for way in of[1]), key=lambda item: item[0] != MEAN)
    for printed in numbers(log):
        for way, group, averages, tokens in ways:
            if (way == MEAN or not printed.loose) and _near(
                printed, printed.form(averages[way]), all(p.precise for p in group)
            ):
                yield Match(printed, way, printed.form(averages[MEAN]), group, tokens)
                break
        else:
            if not printed.loose:
                yield _part(printed, known) or printed


def _part(printed: Printed, known: list[tuple]) -> Match | None:
    """A loss that is a whole fraction of a mean per token, such as one over the gradients that an update
    accumulates."""
    for group, averages, tokens in known:
        honest = averages[MEAN].loss
        number = round(honest / printed.value) if printed.value > 0 else 0
        whole = 2 <= number <= _PARTS and printed.form(averages[MEAN]) == honest
        if whole and _near(printed, honest / number, all(p.precise for p in group)):
            return Match(printed, f"{PART}{number}", honest, group, tokens)
    return None


def _groups(evaluation: Evaluation) -> list[list[Pass]]:
    """All passes, those of each line, and halves of these: of training and held-out data, as a rule."""
    parts = [list(part) for _, part in itertools.groupby(evaluation.passes, key=lambda p: p.lines)]
    groups = [evaluation.passes, *(parts if len(parts) > 1 else [])]
    for part in parts:
        half = len(part) // 2
        groups += [part[:half], part[half:]] if len(part) == 2 * half else []
    return groups


def _near(printed: Printed, value: float, precise: bool) -> bool:
    room = (_EXACT if precise else _HALF) * max(1.0, abs(value))
    return abs(printed.value - value) <= 1.02 * printed.half + room


def numbers(log: str) -> Iterator[Printed]:
    """Figures of held-out data in what was printed, by their names."""
    for line in _COLOURS.sub("", log).splitlines():
        since, speaks = 0, _HELD_OUT.search(line)
        for number in _NUMBER.finditer(line):
            before, since = line[max(since, number.start() - 40) : number.start()], number.end()
            label = re.split(r"[,|{\[(]|\s-\s|:\s", before.rstrip(" :=|,'\"{[("))[-1].strip(" '\"0123456789")
            held = _HELD_OUT.search(label)
            if (held or (speaks and "loss" in label.lower())) and not _OTHER.search(label):
                mantissa, _, power = number[0].lower().partition("e")
                digits = len(mantissa.partition(".")[2]) - int(power or 0)
                yield Printed(label, float(number[0]), 0.5 * 10.0**-digits, not held)
