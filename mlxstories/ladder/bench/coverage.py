"""How much of the training texts ever reaches a batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.hashing import rolling
from mlxstories.ladder.bench.material import Epoch, second_epoch, train_epoch

_LENGTH = 12  # tokens of a stretch that is looked for
_ROOM, _REAL = 3, 0.5  # stretches that a row holds, and the share of its cells that are real, at the least
_TEXTS, _STRETCHES = 256, 16  # texts that are looked at, spread over all, and stretches of each


@dataclass(frozen=True)
class Coverage:
    """Stretches of 12 tokens of the training texts that were looked for in the batches of two epochs.

    Attributes:
        first, both: share found in the first epoch, and in the first or the second.
        texts: share of the texts of which any stretch was found in either.
        stretches: that were looked for.
        rows: of a batch, the most.
    """

    first: float
    both: float
    texts: float
    stretches: int
    rows: int


@measurement
def coverage(bench: Bench) -> Coverage | None:
    """Look for stretches of the texts in two epochs; None where these were not read to the end, hold none, or have rows
    that are mostly padding and so short that most stretches cross the end of one."""
    epochs = [train_epoch(bench), second_epoch(bench)]
    if not all(epoch.batches and epoch.complete for epoch in epochs):
        return None
    lengths = np.concatenate([(batch.mask > 0).sum(1) for batch in epochs[0].batches])
    stretches, owners = _stretches(bench)
    cells = sum(batch.inputs.size for batch in epochs[0].batches)
    cut_short = np.median(lengths) < _ROOM * _LENGTH and lengths.sum() < _REAL * cells
    if not len(stretches) or cut_short:
        return None
    found = [np.isin(stretches, _held(epoch)) for epoch in epochs]
    both = found[0] | found[1]
    if not both.any():
        return None
    texts = np.array([both[owners == owner].any() for owner in np.unique(owners)])
    rows = max(batch.shape[0] for batch in epochs[0].batches)
    return Coverage(float(found[0].mean()), float(both.mean()), float(texts.mean()), len(stretches), rows)


def _stretches(bench: Bench) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of stretches spread over the texts, and the number of the text of each."""
    texts = bench.subject.train_texts
    hashes, owners = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for number in np.unique(np.linspace(0, len(texts) - 1, _TEXTS).astype(int)) if len(texts) else ():
        with bench.calling("the tokenizer"):
            ids = np.array(
                [int(i) for i in bench.subject.tokenizer.encode(str(texts[int(number)]))], np.int64
            )
        if len(ids) >= _LENGTH:
            starts = np.unique(np.linspace(0, len(ids) - _LENGTH, _STRETCHES).astype(int))
            hashes.append(rolling(np.stack([ids[s : s + _LENGTH] for s in starts]), _LENGTH)[:, 0])
            owners.append(np.full(len(starts), number))
    return np.concatenate(hashes), np.concatenate(owners)


def _held(epoch: Epoch) -> np.ndarray:
    """Hashes of all stretches of the batches, targets after the inputs."""
    return np.concatenate(
        [
            rolling(np.concatenate([b.inputs, b.targets[:, -1:]], axis=1), _LENGTH).ravel()
            for b in epoch.batches
            if b.shape[1] >= _LENGTH
        ]
        or [np.empty(0, np.uint64)]
    )
