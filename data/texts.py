"""The training and validation stories of a configuration, as texts."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from mlxstories.data import source as built_in
from mlxstories.data.config import DEFAULT_STORIES, DataConfig
from mlxstories.data.readers import read_documents
from mlxstories.data.splits import MOST_VALIDATION, distinct, fingerprint, split
from mlxstories.data.tinystories import download
from mlxstories.errors import StoriesError, listed


class Texts(NamedTuple):
    """Stories to train on and held-out ones that share nothing.

    Attributes:
        train, val: as texts.
        told: the held-out stories with their exact distributions where they are built in, else None.
        removed: exact duplicates that were left out.
    """

    train: list[str]
    val: list[str]
    told: list[built_in.Story] | None
    removed: int


def read_texts(config: DataConfig) -> Texts:
    """Read or tell the stories of a configuration, and split them."""
    if config.source == "stories":
        return _tell(config)
    return _tinystories(config) if config.source == "tinystories" else _from_files(config)


def validation_seed(seed: int) -> str:
    """The seed of the built-in stories held out, where those trained on have ``seed`` itself."""
    return f"{seed} validation"


def _tell(config: DataConfig) -> Texts:
    """Built-in training texts and validation stories, no story twice.

    The validation stories come from a stream of their own, so that they stay the same whatever the number
    of training stories.
    """
    seen: set[bytes] = set()
    wanted = config.stories or DEFAULT_STORIES["stories"]
    train = list(distinct(built_in.texts(wanted, config.seed), seen))
    removed = wanted - len(train)
    fresh = []
    for story in built_in.stories(config.validation or MOST_VALIDATION, validation_seed(config.seed)):
        if fingerprint(story.text) in seen:
            removed += 1
        else:
            seen.add(fingerprint(story.text))
            fresh.append(story)
    return Texts(train, [story.text for story in fresh], fresh, removed)


def _tinystories(config: DataConfig) -> Texts:
    """TinyStories in its own split; a training story that also is a validation story is left out."""
    seen: set[bytes] = set()
    read = _Counted(read_documents([download("validation")], separator="endoftext"))
    val = list(islice(distinct(read, seen), config.validation or MOST_VALIDATION))
    removed = read.count - len(val)
    read = _Counted(read_documents([download("train")], separator="endoftext"))
    train = list(islice(distinct(read, seen), config.stories or DEFAULT_STORIES["tinystories"]))
    return Texts(train, val, None, removed + read.count - len(train))


def _from_files(config: DataConfig) -> Texts:
    read = _Counted(read_documents(config.source, field=config.field, separator=config.separator))
    texts = list(distinct(read, set()))
    if len(texts) == 1 < read.count:
        raise StoriesError(
            f"all {read.count:,} stories of {listed(config.source, 3)} are the same; give different ones"
        )
    train, val = split(texts, method=config.split, validation=config.validation, seed=config.seed)
    return Texts(train[: config.stories], val, None, read.count - len(texts))


class _Counted:
    """An iterable that knows how many items were taken from it."""

    def __init__(self, items: Iterable[str]):
        self.items = iter(items)
        self.count = 0

    def __iter__(self):
        for item in self.items:
            self.count += 1
            yield item
