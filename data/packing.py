"""Stories as token arrays, and their arrangement in rows of equal length."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mlxstories.bounds import check_choice
from mlxstories.data.tokenizer import END
from mlxstories.errors import StoriesError

LAYOUTS = ("packed", "padded")


@dataclass(frozen=True, eq=False)
class Documents:
    """Stories without special tokens, one after another.

    Attributes:
        tokens: uint16 or uint32 [N], all stories concatenated; an array, or what reads like one.
        offsets: int64 [stories + 1]; story i is ``tokens[offsets[i]:offsets[i + 1]]``.
    """

    tokens: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, stories: Iterable[np.ndarray]) -> Documents:
        """Concatenate the token arrays of stories."""
        stories = [np.asarray(story) for story in stories]
        offsets = np.zeros(len(stories) + 1, dtype=np.int64)
        np.cumsum([len(story) for story in stories], out=offsets[1:])
        tokens = np.concatenate(stories) if len(stories) else np.zeros(0, dtype=np.uint16)
        largest = int(tokens.max(initial=0))
        return cls(tokens.astype(np.uint16 if largest < 1 << 16 else np.uint32), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each story, int64 [stories], the end not counted."""
        return np.diff(self.offsets)

    @property
    def targets(self) -> int:
        """Tokens to predict: every token of every story and its end."""
        return len(self.tokens) + len(self)

    def release(self) -> None:
        """Give back the memory of tokens that lie in files; an array's stay."""
        if not isinstance(self.tokens, np.ndarray):
            self.tokens.release()


class Rows(NamedTuple):
    """R rows of T cells, each cell an (input, target) pair of one story.

    A story of n tokens has n + 1 pairs; it begins with END as input and closes with END as target.

    Attributes:
        inputs: int32 [R, T]; END on padding.
        targets: int32 [R, T]; END on padding.
        mask: float32 [R, T]; 1.0 on real cells, 0.0 on padding.
        story: int32 [R, T]; the story of a cell, -1 on padding.
        position: int32 [R, T]; which of its story's n + 1 targets a cell holds, -1 on padding.
    """

    inputs: np.ndarray
    targets: np.ndarray
    mask: np.ndarray
    story: np.ndarray
    position: np.ndarray


class Arrangement:
    """Which piece of which story lies where in R rows; the rows themselves are filled when asked for.

    It holds 40 bytes a piece, about a quarter of a byte a cell, where filled rows take 20 bytes a cell.
    """

    def __init__(
        self,
        documents: Documents,
        pieces: _Pieces,
        row: np.ndarray,
        context: int,
        rng: np.random.Generator | None,
    ):
        # Within a row: the continuation first, then by story, or in an order drawn by rng.
        order = np.arange(len(row)) if rng is None else rng.permutation(len(row))
        order = order[np.lexsort((pieces.start[order] == 0, row[order]))]
        self._documents, self._context = documents, context
        self._pieces = _Pieces(*(field[order] for field in pieces))
        self._row = row[order]
        self.rows = int(row.max()) + 1 if len(row) else 0

    def fill(self, start: int = 0, stop: int | None = None) -> Rows:
        """The rows ``start`` to ``stop``, as a slice takes them."""
        start, stop, _ = slice(start, stop).indices(self.rows)
        first, last = np.searchsorted(self._row, (start, max(start, stop)))
        story, begin, length = (field[first:last] for field in self._pieces)
        row = self._row[first:last] - start
        before = np.cumsum(length) - length  # cells of all earlier pieces, then of those in the same row
        column = before - before[np.searchsorted(row, row)]

        cell_story = np.repeat(story, length)
        within = np.arange(int(length.sum())) - np.repeat(before, length)
        position = np.repeat(begin, length) + within
        cell = np.repeat(row * self._context + column, length) + within

        shape = (max(0, stop - start), self._context)
        size = shape[0] * shape[1]
        inputs, targets = np.full((2, size), END, dtype=np.int32)
        mask = np.zeros(size, dtype=np.float32)
        stories, positions = np.full((2, size), -1, dtype=np.int32)

        tokens, offsets = self._documents.tokens, self._documents.offsets
        source = offsets[cell_story] + position
        ends = source == offsets[cell_story + 1]
        targets[cell[~ends]] = tokens[source[~ends]]
        begins = position == 0
        inputs[cell[~begins]] = tokens[source[~begins] - 1]
        mask[cell] = 1.0
        stories[cell] = cell_story
        positions[cell] = position
        return Rows(*(field.reshape(shape) for field in (inputs, targets, mask, stories, positions)))


def arrange(
    documents: Documents,
    context: int,
    *,
    layout: str = "packed",
    rng: np.random.Generator | None = None,
    stories: np.ndarray | None = None,
) -> Arrangement:
    """Arrange every (input, target) pair of every story, each exactly once, in rows of ``context`` cells.

    ``packed`` puts whole stories together best-fit by decreasing length (Ding et al. 2024, "Fewer
    Truncations Improve Language Modeling"); ``padded`` gives each story a row of its own. A story longer
    than a row is cut. What continues a story begins a row, so that within a row the stories are those
    that END begins: segment = cumsum(inputs == END).

    With ``rng`` the rows, the order within them, stories of equal length and the first cut of long
    stories are drawn anew; without it the result depends on the documents alone. ``stories``, int64
    indices, arranges these stories alone.
    """
    if context < 1:
        raise StoriesError(f"context must be at least 1 token; got {context}")
    check_choice("layout", layout, LAYOUTS)
    everything = stories is None
    offsets = documents.offsets
    lengths = documents.lengths if everything else offsets[stories + 1] - offsets[stories]
    pieces = _cut(lengths + 1, context, rng)
    row = np.arange(len(pieces.story)) if layout == "padded" else _best_fit(pieces, context, rng)
    if rng is not None and len(row):
        row = rng.permutation(int(row.max()) + 1)[row]
    if not everything:
        pieces = pieces._replace(story=stories[pieces.story])
    return Arrangement(documents, pieces, row, context, rng)


def pack(
    documents: Documents,
    context: int,
    *,
    layout: str = "packed",
    rng: np.random.Generator | None = None,
) -> Rows:
    """All rows of :func:`arrange` at once."""
    return arrange(documents, context, layout=layout, rng=rng).fill()


class _Pieces(NamedTuple):
    """Runs of targets: ``length`` of them from ``start`` of ``story``; int64 arrays of equal length."""

    story: np.ndarray
    start: np.ndarray
    length: np.ndarray


def _cut(cells: np.ndarray, context: int, rng: np.random.Generator | None) -> _Pieces:
    """Cut stories of ``cells`` targets into pieces of at most ``context``."""
    first = np.minimum(cells, context)
    long = cells > context
    if rng is not None and long.any():
        first[long] = rng.integers(1, context, size=int(long.sum()), endpoint=True)
    count = 1 + -(-(cells - first) // context)
    story = np.repeat(np.arange(len(cells)), count)
    nth = np.arange(len(story)) - np.repeat(np.cumsum(count) - count, count)
    start = np.where(nth == 0, 0, first[story] + (nth - 1) * context)
    stop = np.minimum(first[story] + nth * context, cells[story])
    return _Pieces(story, start, stop - start)


def _best_fit(pieces: _Pieces, context: int, rng: np.random.Generator | None) -> np.ndarray:
    """The row of each piece, int64 [pieces].

    Rows with equal room are interchangeable, so best-fit decreasing goes by length and room rather than
    piece by piece: the tightest row takes as many pieces of a length as it can, then the next.
    """
    row = np.empty(len(pieces.length), dtype=np.int64)
    opened = np.flatnonzero(pieces.start > 0)  # a continuation must stand first in its row
    row[opened] = np.arange(len(opened))
    rows = len(opened)
    rooms: dict[int, list[np.ndarray]] = {}
    remaining = context - pieces.length[opened]
    for room in np.unique(remaining[remaining > 0]):
        rooms[int(room)] = [np.flatnonzero(remaining == room)]

    whole = np.flatnonzero(pieces.start == 0)
    if rng is not None:
        whole = rng.permutation(whole)
    whole = whole[np.argsort(-pieces.length[whole], kind="stable")]
    lengths, starts = np.unique(-pieces.length[whole], return_index=True)
    for length, start, stop in zip(-lengths, starts, [*starts[1:], len(whole)], strict=False):
        waiting = whole[start:stop]
        for room in sorted(room for room in rooms if room >= length):
            if not len(waiting):
                break
            candidates = np.concatenate(rooms.pop(room))
            each = room // length
            used = min(len(candidates), -(-len(waiting) // each))
            taken, candidates = candidates[:used], candidates[used:]
            waiting = _put(row, waiting, taken, each, length, room, rooms)
            if len(candidates):
                rooms.setdefault(room, []).append(candidates)
        each = context // length
        fresh = np.arange(rows, rows + -(-len(waiting) // each))
        rows += len(fresh)
        _put(row, waiting, fresh, each, length, context, rooms)
    return row


def _put(row, waiting, taken, each, length, room, rooms) -> np.ndarray:
    """Give every row of ``taken`` up to ``each`` waiting pieces, file its new room; what still waits."""
    here, waiting = waiting[: len(taken) * each], waiting[len(taken) * each :]
    row[here] = np.repeat(taken, each)[: len(here)]
    full, rest = divmod(len(here), each)
    for rows, left in ((taken[:full], room - each * length), (taken[full:], room - rest * length)):
        if len(rows) and left:
            rooms.setdefault(left, []).append(rows)
    return waiting
