"""Whether rows go on as the texts do that they were cut from, and end where these end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.data.hashing import among, distinct, followed, rolling
from mlxstories.ladder.bench.data.texts import encoded, first_texts
from mlxstories.ladder.bench.epochs import second_epoch, train_epoch

_LENGTH = 8  # tokens by which a place of a text is known
_BATCHES = 64  # that are read


@dataclass(frozen=True)
class Stretches:
    """Hashes of the texts' stretches of eight tokens.

    Attributes:
        inner: those behind which a text goes on.
        longer: the same with the token behind them.
        starts, ends: the first and the last of each text, with the white space at its end and without.
        ids: whether each id stands in a text, bool [V].
    """

    inner: np.ndarray
    longer: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    ids: np.ndarray

    def holds(self, ids: np.ndarray) -> np.ndarray:
        """Which ids stand in a text."""
        return (ids >= 0) & self.ids[np.maximum(ids, 0)]


@measurement
def stretches(bench: Bench) -> Stretches | None:
    """Hash the training texts; None where none is longer than a stretch."""
    texts = [ids for ids in first_texts(bench) if len(ids) > _LENGTH]
    if not texts:
        return None
    hashes = [rolling(ids[None], _LENGTH)[0] for ids in texts]
    ends = [rolling(ids[None, -_LENGTH:], _LENGTH)[0, 0] for ids in _stripped(bench) if len(ids) >= _LENGTH]
    return Stretches(
        distinct(np.concatenate([h[:-1] for h in hashes])),
        distinct(np.concatenate([followed(h[:-1], t[_LENGTH:]) for h, t in zip(hashes, texts, strict=True)])),
        distinct(np.array([h[0] for h in hashes])),
        distinct(np.array([*(h[-1] for h in hashes), *ends], np.uint64)),
        np.isin(np.arange(bench.subject.vocab_size), np.concatenate(texts)),
    )


def _stripped(bench: Bench) -> Iterator[np.ndarray]:
    """The ids of the first texts that end with white space, without it."""
    texts = [str(text) for text in bench.subject.train_texts[: len(first_texts(bench))]]
    return encoded(bench, (text.rstrip() for text in texts if text[-1:].isspace()))


@dataclass(frozen=True)
class Departures:
    """Targets that no text has at their place, though the eight tokens before them stand in one that goes on.

    Attributes:
        last, elsewhere: their shares, of the last targets of rows and of all others.
        rows: whose last target was looked up.
        token: the commonest of the last targets that depart.
        alone: its share of them.
        ending: of the places where it is a target, the share at which a text ends.
        begun: share of the rows whose last target departs that begin with an id that no text holds.
    """

    last: float
    elsewhere: float
    rows: int
    token: int
    alone: float
    ending: float
    begun: float


@measurement
def departures(bench: Bench) -> Departures | None:
    """Look up what counts in the texts, with what stands before it; None where no row's last target can be found."""
    told = stretches(bench)
    if told is None:
        return None
    places = [_places(batch, told) for batch in train_epoch(bench).batches[:_BATCHES]]
    targets, last, inner, off, ended, begun = (np.concatenate(parts) for parts in zip(*places, strict=True))
    if not (inner & last).any():
        return None
    tokens, counts = np.unique(targets[off & last], return_counts=True)
    token, count = (int(tokens[counts.argmax()]), int(counts.max())) if len(tokens) else (-1, 0)
    inside, at_end = (int((where & (targets == token)).sum()) for where in (inner, ended))
    return Departures(
        float(off[last & inner].mean()),
        float(off[~last & inner].mean()) if (~last & inner).any() else 0.0,
        int((inner & last).sum()),
        token,
        count / max(int(counts.sum()), 1),
        at_end / max(inside + at_end, 1),
        float(begun[off & last].mean()) if count else 0.0,
    )


def _places(batch: HostBatch, told: Stretches) -> tuple[np.ndarray, ...]:
    """Of each target that counts and has a stretch before it: its id; whether it is its row's last, the stretch stands
    in a text that goes on, none goes on so, a text ends there, and the row begins with an id that no text holds."""
    before = rolling(batch.inputs, _LENGTH)
    targets = batch.targets[:, _LENGTH - 1 :]
    if not targets.size:
        return np.empty(0, np.int64), *(np.empty(0, bool) for _ in range(5))
    last = np.broadcast_to(np.arange(targets.shape[1]) == targets.shape[1] - 1, targets.shape)
    inner = among(before, told.inner)
    off = inner & ~among(followed(before, targets), told.longer)
    ended = ~inner & among(before, told.ends)
    begun = np.broadcast_to(~told.holds(batch.inputs[:, :1]), targets.shape)
    counts = batch.mask[:, _LENGTH - 1 :] > 0
    return tuple(each[counts] for each in (targets, last, inner, off, ended, begun))


@dataclass(frozen=True)
class RowEnds:
    """Rows that are filled up with padding, and shorter than the longest of these.

    Attributes:
        begun: that hold the beginning of a text.
        ended: whose last tokens are the last of a text.
        across: share of those begun that hold the end of another text before it.
        again: share of those begun that the second epoch brings as well.
    """

    begun: int
    ended: int
    across: float
    again: float


@measurement
def row_ends(bench: Bench) -> RowEnds | None:
    """Look up in the texts where rows begin and end, marks left aside that no text holds; None where no row with room
    to spare holds the beginning of a text."""
    told = stretches(bench)
    if told is None:
        return None
    rows = list(_filled_up(train_epoch(bench).batches[:_BATCHES], told))
    longest = max(map(len, rows), default=0)
    rows = [row for row in rows if len(row) < longest]  # the longest may be cut off on purpose
    hashes = [rolling(row[None], _LENGTH)[0] for row in rows]
    begins = [np.flatnonzero(among(own, told.starts))[:1] for own in hashes]
    begun = [(row, int(at[0])) for row, at in zip(rows, begins, strict=True) if len(at)]
    if not begun:
        return None
    second = {row.tobytes() for row in _filled_up(second_epoch(bench).batches, told)}
    return RowEnds(
        len(begun),
        int(among(np.array([own[-1] for own in hashes], np.uint64), told.ends).sum()),
        float(np.mean([told.holds(row[:at]).any() for row, at in begun])),
        float(np.mean([row.tobytes() in second for row, _ in begun])),
    )


def _filled_up(batches: list[HostBatch], told: Stretches) -> Iterator[np.ndarray]:
    """The tokens of each row without the padding at its end, of those that have some: two cells or more of an id that
    no text holds."""
    for batch in batches:
        rows = batch.tokens
        for row, real in zip(rows, told.holds(rows), strict=True):
            kept = np.flatnonzero(real)
            end = int(kept[-1]) + 1 if len(kept) else 0
            tail = row[end:]
            # The very last is a target, and may be left out by another id.
            if end >= _LENGTH and len(tail) > 3 and tail[-2] == tail[-3]:
                yield row[:end]
