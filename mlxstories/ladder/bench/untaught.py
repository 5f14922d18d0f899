"""What validation asks, and the training texts tell, but no batch holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.hashing import rolling
from mlxstories.ladder.bench.material import Epoch, second_epoch, train_epoch, val_epoch

_SHORT = 6  # tokens of a stretch that is looked for
_LONG, _LEAST = 24, 8  # tokens by which a text's place is known for validation's; in short rows half a row
_CELLS = 400_000  # tokens of the texts that are read


@dataclass(frozen=True)
class Untaught:
    """Stretches of six tokens of validation's rows.

    Attributes:
        first, both: share that stands in the training texts, and in no batch of the first epoch, or of two.
        stretches: that were looked for.
    """

    first: float
    both: float
    stretches: int


@measurement
def untaught(bench: Bench) -> Untaught | None:
    """Look for validation's stretches in the texts and in the batches of two epochs; None where these were not read to
    the end. Places of the texts that are validation's own are left aside."""
    epochs, val = [train_epoch(bench), second_epoch(bench)], val_epoch(bench)
    if val is None or not all(epoch.batches and epoch.complete for epoch in epochs):
        return None
    asked, long = held(val, _SHORT), min(_LONG, max(batch.shape[1] for batch in val.batches) // 2)
    told = _told(bench, held(val, long), long) if long >= _LEAST else []
    if not len(asked) or not len(told):
        return None
    missing = np.isin(asked, told) & ~np.isin(asked, held(epochs[0], _SHORT))
    still = missing & ~np.isin(asked, held(epochs[1], _SHORT))
    return Untaught(float(missing.mean()), float(still.mean()), len(asked))


def held(epoch: Epoch, length: int) -> np.ndarray:
    """Hashes of all stretches of real cells of an epoch, the first input and the targets."""
    found = [np.empty(0, np.uint64)]
    for batch in epoch.batches:
        if batch.shape[1] + 1 >= length:
            rows = np.concatenate([batch.inputs[:, :1], batch.targets], axis=1)
            real = np.concatenate([batch.mask[:, :1], batch.mask], axis=1) > 0
            whole = np.lib.stride_tricks.sliding_window_view(real, length, axis=1).all(-1)
            found.append(rolling(rows, length)[whole])
    return np.concatenate(found)


def _told(bench: Bench, own: np.ndarray, long: int) -> np.ndarray:
    """Hashes of the short stretches of the texts, where these are none of validation's ``own`` long ones."""
    found, cells = [np.empty(0, np.uint64)], 0
    with bench.calling("the tokenizer"):
        for text in bench.subject.train_texts:
            ids = np.array([[int(i) for i in bench.subject.tokenizer.encode(str(text))]], np.int64)
            if ids.shape[1] >= long:  # a shorter one cannot be told from one of validation's
                covered = np.convolve(np.isin(rolling(ids, long)[0], own), np.ones(long)) > 0
                free = np.convolve(covered, np.ones(_SHORT), "valid") == 0
                found.append(rolling(ids, _SHORT)[0][free])
            cells += ids.size
            if cells >= _CELLS:
                break
    return np.concatenate(found)
