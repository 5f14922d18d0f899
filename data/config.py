"""Which stories a model is trained and evaluated on, and how they become tokens."""

from __future__ import annotations

from dataclasses import dataclass

from mlxstories.bounds import check_choice, check_number
from mlxstories.data.readers import SEPARATORS
from mlxstories.data.splits import SPLITS
from mlxstories.data.tokenizer import KINDS
from mlxstories.errors import StoriesError

DEFAULT_STORIES = {"stories": 10_000, "tinystories": 100_000}
MOST_STORIES = 10_000_000  # held in memory
MOST_TOKENS = 10_000_000  # of a vocabulary


@dataclass(frozen=True)
class DataConfig:
    """Which stories a model is trained and evaluated on.

    Attributes:
        source: ``stories`` (built in), ``tinystories``, paths of files and directories, or the path of a
            prepared directory (:mod:`mlxstories.data.shards`).
        stories: stories to train on, at most; None means 10,000 built-in ones, 100,000 of TinyStories,
            all of the files.
        validation: stories held out; None means 500 (built in, TinyStories), or a tenth of the files'.
        field: the text field of JSON lines, CSV and parquet.
        separator: what separates stories in text files: auto, endoftext, blank-line, line or file.
        tokenizer: word, char or bpe.
        vocab_size: most tokens in the vocabulary.
        split: ``seeded`` at random by story, or ``tail``, the last ones in order.
        seed: of the built-in stories and of the split.
    """

    source: str | tuple[str, ...] = "stories"
    stories: int | None = None
    validation: int | None = None
    field: str = "text"
    separator: str = "auto"
    tokenizer: str = "word"
    vocab_size: int = 8192
    split: str = "seeded"
    seed: int = 0

    def __post_init__(self):
        if isinstance(self.source, str):
            if self.source not in DEFAULT_STORIES:
                object.__setattr__(self, "source", (self.source,))
        else:
            object.__setattr__(self, "source", tuple(str(path) for path in self.source))
            if not self.source:
                raise StoriesError("no source of stories; name stories, tinystories, or files")
            for name in DEFAULT_STORIES:
                if name in self.source:
                    raise StoriesError(f"{name} cannot be mixed with other sources; name it alone")
        for name in ("stories", "validation"):
            value = getattr(self, name)
            if value is not None:
                check_number(name, value, at_least=1, at_most=MOST_STORIES, whole=True)
        for name, allowed in (("tokenizer", KINDS), ("separator", SEPARATORS), ("split", SPLITS)):
            check_choice(name, getattr(self, name), allowed)
        check_number("vocab_size", self.vocab_size, at_least=4, at_most=MOST_TOKENS, whole=True)
        check_number("seed", self.seed, at_least=0, at_most=2**63 - 1, whole=True)
