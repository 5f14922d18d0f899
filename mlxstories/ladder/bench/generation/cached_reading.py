"""A row read through the subject's own decoding, with the positions that it gives or with those of the full pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.ladder.bench.arrays import first_of
from mlxstories.ladder.bench.bench import Bench
from mlxstories.ladder.bench.subject_fault import SubjectFault
from mlxstories.ladder.patches import Patches, rerouted, with_tokens

Places = dict[int, np.ndarray]
"""Logits [V] by place."""


@dataclass(frozen=True)
class Odd:
    """A position used with the cache that differs from the full pass's.

    Attributes:
        told: offset of a rotation, or row of a table; None where a single token looks up none.
        right: tokens held, or the row that the full pass looks up there.
        table: whether it is a row of a table.
    """

    told: int | None
    right: int
    table: bool


class _ReadEnoughError(Exception):
    """The row is at its end, or decoding does not go on with single tokens."""


@dataclass
class Reading:
    """Calls of the model that are given the row's next tokens, whatever decoding had chosen.

    Attributes:
        row: ids [T].
        first: tokens of the prompt.
        held: tokens read before the present call.
        size: tokens of the present call, 0 outside of one.
        told: what the model said.
        again: whether the token given after the prompt is the prompt's last, and not the one that was chosen.
        given: what the arrays hold that the call after the prompt is given beside its token.
    """

    row: np.ndarray
    first: int
    held: int = 0
    size: int = 0
    told: Places = field(default_factory=dict)
    again: bool = False
    given: list[bytes] = field(default_factory=list)

    def __call__(self, own: Callable, tokens: mx.array, *args, **kwargs) -> Any:
        given = np.array(tokens).ravel()  # raises inside a compiled function, which would keep the row
        end = self.held + len(given)
        in_steps = len(given) == 1 if self.held >= self.first else end <= self.first
        if not in_steps or end > len(self.row):
            raise _ReadEnoughError
        if self.held == self.first:
            chosen = self.told[self.held - 1].argmax()
            self.again = bool(given[0] == self.row[self.held - 1] != chosen)
            self.given = [np.array(a.astype(mx.float32)).tobytes() for a in _kept_in([args, kwargs])]
        self.size = len(given)
        forced = mx.array(self.row[self.held : end]).reshape(tokens.shape).astype(tokens.dtype)
        out = own(forced, *args, **kwargs)
        logits = first_of(out)
        rows = np.array(logits.astype(mx.float32)).reshape(-1, logits.shape[-1])[-len(given) :]
        self.told |= dict(zip(range(end - len(rows), end), rows, strict=True))
        self.held, self.size = end, 0
        return out


def _kept_in(value: Any, depth: int = 6) -> Iterator[mx.array]:
    """The arrays in containers and in objects that are no modules, such as caches."""
    if isinstance(value, mx.array):
        yield value
    elif isinstance(value, (list, tuple, dict)) or (hasattr(value, "__dict__") and not callable(value)):
        items = value if isinstance(value, (list, tuple, dict)) else vars(value)
        for each in (items.values() if isinstance(items, dict) else items) if depth else ():
            yield from _kept_in(each, depth - 1)


def read(
    bench: Bench,
    model: nn.Module,
    row: np.ndarray,
    first: int,
    positions: Callable[[Reading], AbstractContextManager] = nullcontext,
) -> Reading | None:
    """Read a row's first tokens as a prompt and the others one by one, inside of ``positions(reading)``; None where
    decoding does not do so."""
    reading = Reading(row, first)
    model.eval()
    bench.seed_all(bench.seed)
    try:
        with bench.calling("generate"), rerouted(model, with_tokens(reading)), positions(reading):
            bench.subject.generate(model, row[:first].tolist(), len(row) - first + 1)
    except SubjectFault:
        pass  # so far it was read, or not at all
    return reading if reading.held > first else None


def whole(bench: Bench, model: nn.Module, row: np.ndarray) -> Places:
    """What the full forward pass says of a row."""
    model.eval()
    return dict(enumerate(np.array(bench.logits(model, row[None], raw=True))[0]))


def read_in_place(
    bench: Bench, model: nn.Module, row: np.ndarray, first: int
) -> tuple[Reading | None, Odd | None]:
    """`read`, the offsets of rotations and what is looked up in tables of positions taken from the full pass; and the
    first that was another."""
    looked_up: dict[int, np.ndarray] = {}

    def noted(table, ids):
        if ids.size == len(row) and not np.array_equal(np.array(ids).ravel(), row):
            looked_up[id(table)] = np.array(ids).ravel()
        return embedding(table, ids)

    embedding = nn.Embedding.__call__
    with Patches() as patches:
        patches.replace(nn.Embedding, "__call__", noted)
        whole(bench, model, row)
    odd: list[Odd] = []
    asked: set[int] = set()

    @contextmanager
    def in_place(reading: Reading) -> Iterator[None]:
        with Patches() as patches:
            patches.replace(nn.Embedding, "__call__", _looked_up(reading, looked_up, odd, asked))
            patches.replace(mx.fast, "rope", _turned(reading, odd))
            yield

    reading = read(bench, model, row, first, in_place)
    odd += [Odd(None, int(rows[first]), True) for table, rows in looked_up.items() if table not in asked]
    return reading, odd[0] if odd else None


def _looked_up(reading: Reading, rows: dict[int, np.ndarray], odd: list[Odd], asked: set[int]) -> Callable:
    """A replacement for ``nn.Embedding.__call__`` that looks up the rows of the full pass, and collects the tables that
    single tokens are looked up in."""
    own = nn.Embedding.__call__

    def look_up(table, ids):
        if id(table) in rows and ids.size == reading.size:
            asked.update([id(table)] if reading.held >= reading.first else [])
            right = rows[id(table)][reading.held : reading.held + reading.size]
            told = np.array(ids).ravel()
            odd.extend(Odd(int(a), int(b), True) for a, b in zip(told, right, strict=True) if a != b)
            ids = mx.array(right).reshape(ids.shape)
        return own(table, ids)

    return look_up


def _turned(reading: Reading, odd: list[Odd]) -> Callable:
    """A replacement for ``mx.fast.rope`` whose offset is the number of tokens held."""
    own = mx.fast.rope

    def turn(x, *args, offset=0, **kwargs):
        if reading.size and x.shape[-2] == reading.size:  # not all keys at once
            told = int(mx.array(offset).reshape(-1)[0])
            if told != reading.held:
                odd.append(Odd(told, reading.held, False))
            offset = reading.held
        return own(x, *args, offset=offset, **kwargs)

    return turn
