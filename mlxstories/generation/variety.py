"""How varied told stories are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TextStatistics:
    """How varied texts are.

    Attributes:
        distinct_1, distinct_2, distinct_3: different n-grams over all n-grams, of all texts together (Li et
            al. 2016, section 5): 1 means that none occurs twice.
        repeated_4: share of a text's 4-grams that stood in the same text before, ``1 - different / all``,
            averaged over texts (seq-rep-4, Welleck et al. 2020, section 4.2): 0 means no loops.
    """

    distinct_1: float
    distinct_2: float
    distinct_3: float
    repeated_4: float


def text_statistics(texts: Sequence[Sequence[int]]) -> TextStatistics:
    """Variety of texts given as token ids; texts too short for an n-gram do not count in its measure."""

    def ngrams(text, n):
        return list(zip(*(text[i:] for i in range(n)), strict=False))

    def distinct(n):
        found = [ngram for text in texts for ngram in ngrams(text, n)]
        return len(set(found)) / len(found) if found else 0.0

    fours = [found for text in texts if (found := ngrams(text, 4))]
    repeated = [1 - len(set(found)) / len(found) for found in fours]
    return TextStatistics(distinct(1), distinct(2), distinct(3), sum(repeated) / max(len(repeated), 1))
