"""What suits a text of one's own: tokens, model and training, chosen from how much text there is.

The rows are what a study found on texts of several kinds and sizes (docs/own_stories.md, benchmarks/own_text.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlxstories.data.tokenizer import words

PHASE = 3  # the recipe, which was better than phase 1 on every text
STOP_AFTER = 4  # validations
_LOOKED_AT = 2_000_000  # characters that are searched for distinct words


@dataclass(frozen=True)
class Row:
    """What suits texts of about so many characters.

    Attributes:
        because: how much text that is, in words.
    """

    characters: int
    size: str
    vocab_size: int
    batch_size: int
    dropout: float
    epochs: int
    because: str

    def values(self) -> dict[str, Any]:
        """What is chosen, by the names of the options of ``train``."""
        return {
            "tokenizer": "bpe",
            "vocab_size": self.vocab_size,
            "size": self.size,
            "context": CONTEXT,
            "dropout": self.dropout,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "phase": PHASE,
            "weight_decay": DECAY,
            "stop_after": STOP_AFTER,
        }


# Of two neighbours, the one that is nearer by ratio is taken.
ROWS = (
    Row(30_000, "debug", 512, 1, 0.3, 20, "very little text"),
    Row(100_000, "small", 1024, 2, 0.2, 16, "little text"),
    Row(400_000, "small", 2048, 2, 0.2, 8, "some text"),
    Row(2_400_000, "base", 4096, 4, 0.1, 4, "much text"),
)
CONTEXT = 256  # tokens: a shorter one has up to 2 % fewer bits a character on little text, and tells shorter stories
DECAY = 0.1


@dataclass(frozen=True)
class Recommendation:
    """A row for a text, and what was seen of the text.

    Attributes:
        characters: of the training stories.
        distinct: different words in the first 2 million of them.
        story: characters of the middle story.
    """

    row: Row
    characters: int
    distinct: int
    story: int


def recommended(texts: Sequence[str]) -> Recommendation:
    """What suits these training stories."""
    characters = sum(map(len, texts))
    row = min(ROWS, key=lambda row: abs(math.log(max(characters, 1) / row.characters)))
    seen: set[str] = set()
    looked = 0
    for text in texts:
        if looked > _LOOKED_AT:
            break
        seen.update(words(text))
        looked += len(text)
    lengths = sorted(map(len, texts))
    return Recommendation(row, characters, len(seen), lengths[len(lengths) // 2])
