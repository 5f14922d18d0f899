"""What counts of the training tokens alone predict."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mlxstories.data.packing import Documents
from mlxstories.data.tokenizer import END


@dataclass(frozen=True, eq=False)
class Counts:
    """Shares of tokens, and interpolated pair probabilities (Witten and Bell 1991).

    Attributes:
        after: int [N], the training tokens to predict.
        size: V, of the vocabulary.
    """

    after: np.ndarray
    size: int

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


def baselines(train: Documents, val: Documents, size: int) -> dict[str, float]:
    """Loss on the held-out stories, nats per token, of what knows only how often each token occurs
    (``frequencies``), or also the token before it (``pairs``)."""
    x, y = _pairs(train)
    before, after = _pairs(val)
    counts = Counts(y, size)
    shares = {"frequencies": counts.unigram[after], "pairs": counts.given(x, before, after, size)}
    return {name: float(-np.log(share).mean()) for name, share in shares.items()}


def _pairs(documents: Documents) -> tuple[np.ndarray, np.ndarray]:
    """Every token of every story and its end, int64 [targets], after the token before it."""
    after = np.insert(np.asarray(documents.tokens).astype(np.int64), documents.offsets[1:], END)
    return np.concatenate([[END], after[:-1]]), after
