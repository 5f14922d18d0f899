"""Target ids that the tokenizer produces for no text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.data.texts import encoded
from mlxstories.ladder.bench.data.tokens import spread
from mlxstories.ladder.bench.epochs import train_epoch

_BATCHES = 64  # that are read
_FEWEST = 1000  # tokens that the tokenizer has given


@dataclass(frozen=True)
class Foreign:
    """The commonest target that counts among those that do not occur in a sample of encoded texts.

    Attributes:
        token: its id.
        share: of all that counts.
    """

    token: int
    share: float


@measurement
def foreign(bench: Bench) -> Foreign | None:
    """Count targets that occur in no text; None where there are too few tokens to say what texts hold."""
    counts = np.zeros(bench.subject.vocab_size, np.int64)
    for batch in train_epoch(bench).batches[:_BATCHES]:
        real = batch.targets[(batch.mask > 0) & (batch.targets >= 0)]  # a loss may leave out ids below 0
        counts += np.bincount(real, minlength=len(counts))[: len(counts)]
    known = np.concatenate([*encoded(bench, spread(bench.subject.train_texts)), np.empty(0, np.int64)])
    if len(known) < _FEWEST or not counts.sum():
        return None
    strange = counts.copy()
    strange[known[known < len(counts)]] = 0
    token = int(strange.argmax())
    return Foreign(token, float(strange[token] / counts.sum()))
