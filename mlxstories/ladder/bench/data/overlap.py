"""How much of the validation data training has seen: by text, by row and by window of tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.data.hashing import distinct, rolling
from mlxstories.ladder.bench.data.windows import window_overlap
from mlxstories.ladder.bench.epochs import train_epoch, val_epoch

_PHRASE = 8  # words
_NEAR = 0.7  # share of a story's phrases in one other story that makes them near duplicates
_TEXTS = 20_000


@dataclass(frozen=True)
class Overlap:
    """What validation shares with training, counted in one way.

    Attributes:
        kind: what was counted: "texts", "rows" or "windows".
        shared: share of validation's that also occur in training.
        natural: share of training's that also occur elsewhere in training.
        count: validation texts or rows.
    """

    kind: str
    shared: float
    natural: float
    count: int


@measurement
def overlaps(bench: Bench) -> list[Overlap]:
    """What validation shares with training, in every way in which it can be counted; empty without validation."""
    subject, train, val = bench.subject, train_epoch(bench), val_epoch(bench)
    found = []
    if subject.train_texts is not None and subject.val_texts is not None:
        shares = text_overlap(list(subject.train_texts), list(subject.val_texts))
        found.append(Overlap("texts", *shares, len(subject.val_texts)))
    if val is not None:
        rows = sum(batch.shape[0] for batch in val.batches)
        found.append(Overlap("rows", *row_overlap(train.batches, val.batches), rows))
        found.append(Overlap("windows", *window_overlap(train.batches, val.batches), rows))
    return found


def text_overlap(train: Sequence[str], val: Sequence[str]) -> tuple[float, float]:
    """Share of validation texts with an exact or near duplicate in training, and the same share for a sample of
    training texts among the other ones."""
    train, val = list(train)[:_TEXTS], list(val)[:1000]
    if not train or not val:
        return 0.0, 0.0
    ids: dict[str, int] = {}
    hashed = [_phrases(text, ids) for text in train]
    owners = np.repeat(np.arange(len(train)), [len(h) for h in hashed])
    phrases = np.concatenate(hashed) if hashed else np.empty(0, np.uint64)
    order = np.argsort(phrases, kind="stable")
    phrases, owners = phrases[order], owners[order]

    def duplicated(own: np.ndarray, itself: int | None = None) -> bool:
        if len(own) == 0:
            return False
        left, right = np.searchsorted(phrases, own, "left"), np.searchsorted(phrases, own, "right")
        counts = np.where(right - left <= 200, right - left, 0)  # what very many stories share tells nothing
        starts = np.repeat(left - np.cumsum(counts) + counts, counts)
        others = owners[starts + np.arange(len(starts))]
        if itself is not None:
            others = others[others != itself]
        return len(others) > 0 and np.bincount(others).max() >= _NEAR * len(own)

    shared = np.mean([duplicated(_phrases(text, ids)) for text in val])
    sample = range(0, len(train), max(1, len(train) // 300))
    natural = np.mean([duplicated(hashed[i], i) for i in sample])
    return float(shared), float(natural)


def _phrases(text: str, ids: dict[str, int]) -> np.ndarray:
    words = re.findall(r"\w+", text.lower())
    numbers = np.array([ids.setdefault(word, len(ids)) for word in words], dtype=np.int64)
    return distinct(rolling(numbers[None], min(_PHRASE, max(len(words), 1))))


def row_overlap(train: list[HostBatch], val: list[HostBatch]) -> tuple[float, float]:
    """Share of validation rows that are training rows, and of training rows that occur more than once."""
    seen, repeated = set(), 0
    for row in _rows(train):
        repeated += row in seen
        seen.add(row)
    rows = list(_rows(val))
    total = sum(batch.shape[0] for batch in train)
    return sum(row in seen for row in rows) / max(len(rows), 1), repeated / max(total, 1)


def _rows(batches: list[HostBatch]) -> Iterator[bytes]:
    for batch in batches:
        for ids, mask in zip(batch.inputs, batch.mask, strict=True):
            if (mask > 0).any():  # rows of padding alone fill up a last batch
                yield ids[mask > 0].tobytes()
