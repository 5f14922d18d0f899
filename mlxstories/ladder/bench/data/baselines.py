"""What counts of the training tokens alone predict: word frequencies, pairs, repeats and recall."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlxstories.data.counts import Counts
from mlxstories.ladder.bench.batches import HostBatch


@dataclass(frozen=True)
class Baselines:
    """Losses in nats per token on the held-out rows, from counts of the training tokens."""

    unigram: float
    bigram: float
    repeats: float  # a bigram that also knows whether the token before was the same
    recall: float  # a bigram mixed with what followed the same token earlier in the row

    @property
    def best(self) -> float:
        return min(self.unigram, self.bigram, self.repeats, self.recall)


def count_baselines(batches: list[HostBatch], held: HostBatch, rows: HostBatch, size: int) -> Baselines:
    """Losses of the held-out rows; how far recall can be trusted is counted on the training rows ``rows``."""
    counts = Counts(np.concatenate([b.targets[b.mask > 0] for b in batches]), size)
    real = held.mask > 0
    y = held.targets[real]
    plain = np.concatenate([b.inputs[b.mask > 0] for b in batches])
    pairs = counts.given(plain, held.inputs[real], y, size)
    doubled = np.concatenate([with_repeats(b.inputs)[b.mask > 0] for b in batches])
    repeats = counts.given(doubled, with_repeats(held.inputs)[real], y, 2 * size)
    hit, guessed = recalled(rows)
    trust = hit[guessed].mean() if guessed.any() else 0.0
    hit, guessed = recalled(held)
    recall = np.where(guessed[real], trust * hit[real] + (1 - trust) * pairs, pairs)
    shares = (counts.unigram[y], pairs, repeats, recall)
    return Baselines(*(float(-np.log(np.maximum(p, 1e-12)).mean()) for p in shares))


def recalled(batch: HostBatch) -> tuple[np.ndarray, np.ndarray]:
    """Whether each target is what followed the last earlier occurrence of the current token in its row, and
    whether there was one; [B, T] each."""
    ids, length = batch.inputs, batch.shape[1]
    earlier = (ids[:, :, None] == ids[:, None, :]) & np.tri(length, k=-1, dtype=bool)
    guessed = earlier.any(-1)
    last = length - 1 - np.argmax(earlier[:, :, ::-1], axis=-1)
    guess = np.take_along_axis(batch.targets, np.where(guessed, last, 0), axis=1)
    guessed &= batch.mask > 0
    return (guess == batch.targets) & guessed, guessed


def with_repeats(inputs: np.ndarray) -> np.ndarray:
    """2 x id, plus 1 where the id before is the same."""
    same = np.zeros_like(inputs)
    same[:, 1:] = inputs[:, 1:] == inputs[:, :-1]
    return 2 * inputs + same
