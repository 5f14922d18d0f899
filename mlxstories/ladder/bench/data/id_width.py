"""Whether ids look as if they had been stored in fewer bits than they need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.data.texts import ids_of
from mlxstories.ladder.bench.epochs import train_epoch

_BITS = (8, 16)
_TEXTS = 64  # that are encoded


@dataclass(frozen=True)
class NarrowIds:
    """Ids that all fit into so many bits although those of the vocabulary do not.

    Attributes:
        bits: 8 or 16.
        highest: id of the batches.
        cells: ids that were looked at.
        beyond: share of the ids that the tokenizer gives to the texts which need more bits; None without both.
    """

    bits: int
    highest: int
    cells: int
    beyond: float | None

    @property
    def room(self) -> float:
        """How far the highest id is from the last that fits, as a share of them all."""
        return 1 - (self.highest + 1) / 2**self.bits


@measurement
def narrow_ids(bench: Bench) -> NarrowIds | None:
    """The training batches' ids beside what 8 and 16 bits hold; None where the vocabulary needs no more, or ids do."""
    batches = train_epoch(bench).batches
    highest = max(int(max(batch.inputs.max(), batch.targets.max())) for batch in batches)
    bits = next((b for b in _BITS if highest < 2**b < bench.subject.vocab_size), None)
    if bits is None:
        return None
    return NarrowIds(bits, highest, sum(batch.inputs.size for batch in batches), _beyond(bench, 2**bits))


def _beyond(bench: Bench, size: int) -> float | None:
    tokenizer, texts = bench.subject.tokenizer, bench.subject.train_texts
    if tokenizer is None or texts is None or len(texts) == 0:
        return None
    chosen = texts[:: max(1, len(texts) // _TEXTS)][:_TEXTS]
    with bench.calling("the tokenizer"):
        ids = np.array([i for text in chosen for i in ids_of(tokenizer, str(text))])
    return float((ids >= size).mean()) if ids.size else None
