"""What counts of the training tokens alone predict: word frequencies, pairs, repeats and recall."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

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


@dataclass(frozen=True)
class Counts:
    """Interpolated pair probabilities (Witten and Bell 1991) from the real tokens of some batches."""

    batches: list[HostBatch]
    size: int

    @cached_property
    def after(self) -> np.ndarray:
        return np.concatenate([b.targets[b.mask > 0] for b in self.batches])

    @cached_property
    def unigram(self) -> np.ndarray:
        """The share of each token, [V]."""
        counts = np.bincount(self.after, minlength=self.size).astype(np.float64)
        return (counts + 0.5) / (counts.sum() + 0.5 * self.size)

    def given(self, before: np.ndarray, x: np.ndarray, y: np.ndarray, contexts: int) -> np.ndarray:
        """The probability of each ``y`` in the context ``x``, contexts of the training tokens being ``before``."""
        keys, pairs = np.unique(before * self.size + self.after, return_counts=True)
        seen = np.bincount(before, minlength=contexts)
        kinds = np.bincount(keys // self.size, minlength=contexts)
        place = np.minimum(np.searchsorted(keys, x * self.size + y), len(keys) - 1)
        joint = np.where(keys[place] == x * self.size + y, pairs[place], 0)
        shares = (joint + kinds[x] * self.unigram[y]) / np.maximum(seen[x] + kinds[x], 1)
        return np.where(seen[x] > 0, shares, self.unigram[y])


def count_baselines(batches: list[HostBatch], held: HostBatch, rows: HostBatch, size: int) -> Baselines:
    """Losses of the held-out rows; how far recall can be trusted is counted on the training rows ``rows``."""
    counts = Counts(batches, size)
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
