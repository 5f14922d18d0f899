"""How texts meet within a row, and what stands in place of a prompt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.data.ends import end_token
from mlxstories.ladder.bench.data.hashing import among, rolling
from mlxstories.ladder.bench.data.texts import first_texts
from mlxstories.ladder.bench.epochs import train_epoch

_LENGTH = 8  # tokens by which a place of a text is known
_BATCHES = 64  # that are read


@dataclass(frozen=True)
class TextBoundaries:
    """Places in the rows where one text ends and the next begins with nothing between them.

    Attributes:
        count: of them.
        end: the end token that the tokenizer names.
        used: whether it stands anywhere in the rows.
    """

    count: int
    end: int
    used: bool


@measurement
def text_boundaries(bench: Bench) -> TextBoundaries | None:
    """Look for the last tokens of texts directly before the first tokens of others; None where the tokenizer names no
    end token."""
    end = end_token(bench)
    if end is None:
        return None
    first, last = (np.concatenate([h[at] for h in _texts(bench) if len(h)] or [_NONE]) for at in _ENDS)
    count, used = 0, False
    for batch in train_epoch(bench).batches[:_BATCHES]:
        rows = batch.tokens
        used = used or bool((rows == end).any())
        if rows.shape[1] >= 2 * _LENGTH:
            hashes = rolling(rows, _LENGTH)
            count += int((among(hashes[:, :-_LENGTH], last) & among(hashes[:, _LENGTH:], first)).sum())
    return TextBoundaries(count, end, used)


@dataclass(frozen=True)
class Erased:
    """Rows in which the loss leaves out what stands before the first target that counts.

    Attributes:
        token: what stands there in the inputs.
        filled: share of those places that hold it.
        rows: that were looked up in the texts.
        known: share of them for which the text has as many tokens there, or more.
    """

    token: int
    filled: float
    rows: int
    known: float


@measurement
def erased(bench: Bench) -> Erased | None:
    """Look up in the texts what counts, and what stands before it there; None where the loss leaves nothing out at the
    beginning of rows, or no row is found in the texts."""
    fronts: list[np.ndarray] = []
    sizes, keys = [], []
    for batch in train_epoch(bench).batches[:_BATCHES]:
        for row, mask in zip(batch.tokens, batch.mask > 0, strict=True):
            counted = np.flatnonzero(mask)
            if len(counted) >= _LENGTH and counted[0] > 1:
                start = int(counted[0]) + 1  # of the first target, in the row
                fronts.append(row[1:start])
                sizes.append(start - 1)
                keys.append(rolling(row[None, start : start + _LENGTH], _LENGTH)[0, 0])
    places = _first_places(bench) if fronts else {}
    if not places:
        return None
    cells = np.concatenate(fronts)
    tokens, counts = np.unique(cells, return_counts=True)
    before = np.array([places.get(int(key), -1) for key in keys])
    found = before >= 0
    if not found.any():
        return None
    told = before[found] >= np.maximum(np.array(sizes)[found] - 1, 1)
    most = int(counts.argmax())
    return Erased(int(tokens[most]), float(counts[most] / len(cells)), int(found.sum()), float(told.mean()))


_ENDS = (slice(0, 1), slice(-1, None))
_NONE = np.empty(0, np.uint64)


@measurement
def _texts(bench: Bench) -> list[np.ndarray]:
    """Hashes of all stretches of each text."""
    return [rolling(ids[None], _LENGTH)[0] if len(ids) >= _LENGTH else _NONE for ids in first_texts(bench)]


def _first_places(bench: Bench) -> dict[int, int]:
    """Of each stretch, the tokens that stand before it in the text that has fewest."""
    found: dict[int, int] = {}
    for hashes in _texts(bench):
        for place, key in enumerate(hashes.tolist()):
            found[key] = min(place, found.get(key, place))
    return found
