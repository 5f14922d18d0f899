"""What validation asks for that the training texts hold but no batch does; and how much of each text is read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.data.hashing import among, distinct, rolling
from mlxstories.ladder.bench.data.texts import first_texts, held
from mlxstories.ladder.bench.epochs import val_epoch, whole_epochs

_SHORT, _STRETCH = 6, 12  # tokens of a stretch that is looked for: of validation, of the texts
_LONG, _LEAST = 24, 8  # tokens by which a text's place is known for validation's; in short rows half a row
_HALF = 0.5  # of a row's stretches
_ROOM = 3  # stretches that a row holds at least
_STRIPPED = 4  # stretches at the end of a text, of which white space may have been taken off


@dataclass(frozen=True)
class UnusedTexts:
    """Validation's rows, by the share of their stretches that occur in the texts but in no batch of two epochs.

    Attributes:
        of_a_kind: share of the rows of which half or more is missing.
        median: of all rows.
        rows: that were looked at.
    """

    of_a_kind: float
    median: float
    rows: int


@measurement
def unused_texts(bench: Bench) -> UnusedTexts | None:
    """Look for validation's stretches in the texts and in the batches of two epochs; None where these were not read to
    the end. Places in the texts that are validation's own are left aside."""
    epochs, val = whole_epochs(bench), val_epoch(bench)
    if val is None or epochs is None:
        return None
    long = min(_LONG, max(batch.shape[1] for batch in val.batches) // 2)
    told = _told(bench, held(val, long), long) if long >= _LEAST else []
    if not len(told):
        return None
    taught = np.concatenate([held(epoch, _SHORT) for epoch in epochs])
    lost, shares = told[~among(told, taught)], []
    for batch in val.batches:
        if batch.shape[1] >= _SHORT:
            found = among(rolling(batch.targets, _SHORT), lost)
            whole = np.lib.stride_tricks.sliding_window_view(batch.mask > 0, _SHORT, axis=1).all(-1)
            asked = whole.sum(1)
            shares += list(((found & whole).sum(1) / np.maximum(asked, 1))[asked >= _SHORT])
    if not shares:
        return None
    return UnusedTexts(float(np.mean(np.array(shares) >= _HALF)), float(np.median(shares)), len(shares))


def _told(bench: Bench, own: np.ndarray, long: int) -> np.ndarray:
    """Hashes of the short stretches of the texts, except where they lie in one of validation's ``own`` long ones."""
    # A shorter text cannot be told from one of validation's.
    texts = [ids for ids in first_texts(bench) if len(ids) >= long]
    if not texts:
        return np.empty(0, np.uint64)
    places = [rolling(ids[None], long)[0] for ids in texts]
    found = []
    for ids, own_places in zip(texts, _each_among(places, own), strict=True):
        covered = np.convolve(own_places, np.ones(long)) > 0
        free = np.convolve(covered, np.ones(_SHORT), "valid") == 0
        found.append(rolling(ids[None], _SHORT)[0][free])
    return distinct(np.concatenate(found))


def _each_among(hashes: list[np.ndarray], known: np.ndarray) -> list[np.ndarray]:
    """`among` for each of several arrays, asked once of all: each question sorts what is known anew."""
    return np.split(among(np.concatenate(hashes), known), np.cumsum([len(one) for one in hashes])[:-1])


@measurement
def _long_texts(bench: Bench) -> tuple[int, list[np.ndarray]] | None:
    """The length of the longest row, and of each text that is longer: which of its stretches of 12 tokens two epochs
    hold. None where these were not read to the end, or no text is so long."""
    epochs = whole_epochs(bench)
    if epochs is None:
        return None
    row = max(batch.shape[1] for batch in epochs[0].batches)
    texts = [ids for ids in first_texts(bench) if len(ids) > max(row, _STRETCH)]
    if not texts:
        return None
    taught = np.concatenate([held(epoch, _STRETCH) for epoch in epochs])
    return row, _each_among([rolling(ids[None], _STRETCH)[0] for ids in texts], taught)


def _length(found: np.ndarray) -> int:
    """The tokens of a text with so many stretches."""
    return len(found) + _STRETCH - 1


@dataclass(frozen=True)
class TextBeginnings:
    """Stretches of 12 tokens of the texts that are longer than two rows.

    Attributes:
        head, rest: shares found in two epochs of those within the first row's length of a text, and of those behind it.
        behind: share of the tokens that lie behind it.
        texts: that are so long.
    """

    head: float
    rest: float
    behind: float
    texts: int


@measurement
def text_beginnings(bench: Bench) -> TextBeginnings | None:
    """Look for the texts' stretches by their place; None where epochs were not read to the end or no text is long
    enough."""
    row, longer = _long_texts(bench) or (0, [])
    found = [each for each in longer if _length(each) > 2 * row]
    if not found or row < 2 * _STRETCH:
        return None
    head = np.concatenate([f[: row - 2 * _STRETCH + 1] for f in found])
    rest = np.concatenate([f[row:] for f in found])
    behind = 1 - len(found) * row / sum(map(_length, found))
    return TextBeginnings(float(head.mean()), float(rest.mean()), behind, len(found))


@dataclass(frozen=True)
class TextEnds:
    """Texts that are longer than a row, in the batches of two epochs.

    Attributes:
        begun, ended: shares of them whose first 12 tokens were found, and whose last.
        lost: share of their tokens that lie behind the last stretch that was found.
        texts: that are so long.
    """

    begun: float
    ended: float
    lost: float
    texts: int


@measurement
def text_ends(bench: Bench) -> TextEnds | None:
    """Look for the first and the last tokens of the texts; None where epochs were not read to the end, rows are so
    short that they cut most stretches, or no text is longer than one."""
    row, found = _long_texts(bench) or (0, [])
    if row < _ROOM * _STRETCH:
        return None
    last = [int(np.flatnonzero(each)[-1]) + _STRETCH if each.any() else len(each) for each in found]
    return TextEnds(
        float(np.mean([each[0] for each in found])),
        float(np.mean([each[-_STRIPPED:].any() for each in found])),
        1 - sum(last) / sum(map(_length, found)),
        len(found),
    )
