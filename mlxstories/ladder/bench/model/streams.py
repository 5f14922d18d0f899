"""Which branches of a model are added to its stream, which replace it, and where dropout hits the stream itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.model.consistency import noised, plain, short
from mlxstories.ladder.bench.model.modules import dropouts
from mlxstories.ladder.where.calls import Call, calls
from mlxstories.ladder.where.places import Line
from mlxstories.trees import by_path

_LENGTH = 24  # tokens of a row
_MARKS = 3  # random sums by which an array is known
_EQUAL = 1e-4  # of their size, by which sums of the same may differ
_CHILDREN = 96  # calls within one, at most

Mark = np.ndarray


@dataclass(frozen=True)
class Streams:
    """The branches of a model, by the calls that end them.

    Attributes:
        added: how many calls return what is added to what they or a norm before them have read.
        replaced: lines at which what a branch returns takes the stream's place, each run more than once, and how often.
    """

    added: int
    replaced: dict[Line, int]


@measurement
def streams(bench: Bench) -> Streams | None:
    """Follow sums through one forward pass, in evaluation mode with noise on the weights; None with weights of 16
    bits."""
    if not plain(bench).full_precision:
        return None
    parts = _parts(bench, training=False)
    branches = {id(call) for part in parts for call in part.added()}
    replaced: dict[Line, int] = defaultdict(int)
    for part in parts:
        if not branches & {id(part.call), *(id(call) for call in part.call.within())}:
            for call in part.replacing():
                replaced[call.lines[-1]] += 1
    return Streams(len(branches), {line: times for line, times in replaced.items() if times > 1})


@measurement
def streams_dropped(bench: Bench) -> dict[Line, list[float]] | None:
    """Lines at which a dropout reads a sum and the stream goes on from what it leaves, each run more than once, and the
    shares that it takes away; followed in training mode, with noise on the weights; None with 16 bits."""
    if not plain(bench).full_precision:
        return None
    if not any(dropouts(bench).values()):
        return {}
    shares: dict[Line, list[float]] = defaultdict(list)
    for part in _parts(bench, training=True):
        for call in part.dropping():
            shares[call.lines[-1]].append(1 - float(call.module._p_1))
    return {line: taken for line, taken in shares.items() if len(taken) > 1}


def _parts(bench: Bench, training: bool) -> list[_Part]:
    model = noised(bench)
    model.train(training)
    ids = short(bench, slice(2), _LENGTH).device().inputs
    bench.seed_all(1)
    with bench.calling("model(tokens)"):
        seen = calls(model, ids)
    within: dict[int, list[Call]] = defaultdict(list)
    for call in seen:
        within[id(call.parent)].append(call)
    return [_Part(call, within[id(call)]) for call in seen if len(within[id(call)]) <= _CHILDREN]


class _Part:
    """One call and the calls directly within it, of which each array [B, T, D] is known by its marks.

    Attributes:
        values: marks in the order in which the arrays are there: what is read and returned.
        sums: (what a call's result is added to, that call, the sum), by their numbers among the values.
    """

    def __init__(self, call: Call, inner: list[Call]):
        self.call, self.inner = call, inner
        self.values: list[Mark] = []
        self.read: dict[int, int] = {}
        self.returned: dict[int, int] = {}
        self.start = self._take(call.before)
        for each in inner:
            self.read[id(each)], self.returned[id(each)] = self._take(each.before), self._take(each.after)
        self.end = self._take(call.after)
        self.branches = [c for c in inner if c.lines and _has_matrix(c) and min(self._ends_of(c)) >= 0]
        self.sums = list(self._sums())

    def _ends_of(self, call: Call) -> tuple[int, int]:
        return self.read[id(call)], self.returned[id(call)]

    def _take(self, arrays: list[mx.array]) -> int:
        """The number of the first array of the stream's form among the values, -1 without any."""
        fitting = (a for a in arrays if a.ndim == 3 and mx.issubdtype(a.dtype, mx.floating))
        array = next(fitting, None)
        if array is None:
            return -1
        self.values.append(_mark(np.array(array, dtype=np.float64)))
        return len(self.values) - 1

    def _same(self, one: int, other: Mark) -> bool:
        mark = self.values[one]
        return mark.shape == other.shape and bool(np.abs(mark - other).max() <= _EQUAL * np.abs(mark).max())

    def _known(self, mark: Mark, numbers) -> bool:
        return any(self._same(number, mark) for number in numbers)

    def _sums(self) -> Iterator[tuple[int, Call, int]]:
        for call in self.branches:
            result = self.returned[id(call)]
            for first in range(result):
                if self.values[first].shape != self.values[result].shape or self._same(
                    first, self.values[result]
                ):
                    continue
                total = self.values[first] + self.values[result]
                later = (n for n in range(result + 1, len(self.values)) if self._same(n, total))
                if (found := next(later, None)) is not None:
                    yield first, call, found

    def added(self) -> list[Call]:
        return [call for _, call, _ in self.sums]

    def replacing(self) -> Iterator[Call]:
        """Calls of which the result, without having been added to anything, is what others are added to; and one that
        ends the part, behind a norm of a sum."""
        raw = [n for n in (self.start, *(total for _, _, total in self.sums)) if n >= 0]
        carried = self.start >= 0 and self._joins(self.start, len(self.values))
        for call in self.branches:
            read, result = self._ends_of(call)
            bent = not self._known(self.values[read], raw)
            raw += [] if bent else [result]  # what reads a bent branch goes on with it
            serves = [total for first, _, total in self.sums if self._same(result, self.values[first])]
            served = bent and serves and not (carried or any(self._joins(total, read) for total in serves))
            ends = self.end >= 0 and self._same(self.end, self.values[result])
            if served or (ends and self._behind_a_norm(read)):
                yield call

    def dropping(self) -> Iterator[Call]:
        """Calls of a dropout that reads a sum, and whose result is added to or ends the part."""
        totals = [total for _, _, total in self.sums]
        onward = [n for n in (*(first for first, _, _ in self.sums), self.end) if n >= 0]
        for call in self.inner:
            if call.lines and isinstance(call.module, nn.Dropout) and min(self._ends_of(call)) >= 0:
                read, left = (self.values[n] for n in self._ends_of(call))
                if self._known(read, totals) and self._known(left, onward) and not np.array_equal(read, left):
                    yield call

    def _joins(self, total: int, before: int) -> bool:
        """Whether a value is added in its turn to one of those before a number."""
        earlier = [n for n in range(before) if self.values[n].shape == self.values[total].shape]
        return any(
            self._same(last, self.values[n] + self.values[total])
            for n in earlier
            for last in range(total + 1, len(self.values))
        )

    def _behind_a_norm(self, read: int) -> bool:
        totals = [total for _, _, total in self.sums]
        norms = [c for c in self.inner if not _has_matrix(c) and min(self._ends_of(c)) >= 0]
        return any(
            self._same(read, self.values[self.returned[id(c)]])
            and self._known(self.values[self.read[id(c)]], totals)
            and not self._same(read, self.values[self.read[id(c)]])
            for c in norms
        )


def _has_matrix(call: Call) -> bool:
    return any(array.ndim > 1 for array in by_path(call.module.parameters()).values())


def _mark(array: np.ndarray) -> Mark:
    """Random sums of an array, equal for equal arrays and the sum of theirs for a sum; another form for another."""
    drawn = np.random.default_rng(array.size)
    return np.array([(drawn.standard_normal(array.shape) * array).sum() for _ in range(_MARKS)])
