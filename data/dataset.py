"""From a DataConfig to token arrays, with what is known about them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path

import numpy as np

from mlxstories.data import shards
from mlxstories.data import source as built_in
from mlxstories.data.config import DEFAULT_STORIES, DataConfig
from mlxstories.data.packing import Documents
from mlxstories.data.readers import read_documents
from mlxstories.data.splits import (
    MOST_VALIDATION,
    distinct,
    fingerprint,
    near_duplicates,
    split,
)
from mlxstories.data.tinystories import download
from mlxstories.data.tokenizer import Tokenizer, words
from mlxstories.errors import StoriesError


@dataclass(frozen=True, eq=False)
class Floor:
    """The best that any model can do on the validation stories, known for the built-in stories alone.

    Attributes:
        nats: mean -log p per token under the source itself: the loss of a perfect model.
        accuracy: mean probability of the most probable token; None below the word level.
        by_kind: for choice, recall and fixed tokens a dict of share, nats and accuracy; empty below the
            word level.
        entropy, best: float32 [targets], per validation target, the ends of stories included; None below
            the word level.
        kind: uint8 [targets], index into ``mlxstories.data.source.KINDS``, likewise.
    """

    nats: float
    accuracy: float | None
    by_kind: dict[str, dict[str, float]]
    entropy: np.ndarray | None
    best: np.ndarray | None
    kind: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and validation stories as texts and tokens, their floor, and a report of JSON values."""

    config: DataConfig
    tokenizer: Tokenizer
    train: Documents
    val: Documents
    train_texts: Sequence[str]
    val_texts: Sequence[str]
    floor: Floor | None
    report: dict
    fingerprint: str


def load_dataset(config: DataConfig, tokenizer: Tokenizer | None = None) -> Dataset:
    """Read or tell the stories of a configuration, split them and turn them into tokens.

    A given tokenizer is used as it is; else one is trained on the training stories alone. Raises
    StoriesError for input that cannot be read or split.
    """
    if isinstance(config.source, tuple) and any(shards.is_prepared(Path(path)) for path in config.source):
        return _prepared(config, tokenizer)
    told: list[built_in.Story] | None = None
    if config.source == "stories":
        train_texts, told, removed = _tell(config)
        val_texts = [story.text for story in told]
    elif config.source == "tinystories":
        train_texts, val_texts, removed = _tinystories(config)
    else:
        train_texts, val_texts, removed = _from_files(config)

    if tokenizer is None:
        # Every word of the built-in stories is known beforehand; however few are told, none is unknown.
        known = [" ".join(sorted(built_in.vocabulary()))] if told else []
        tokenizer = Tokenizer.train(config.tokenizer, [*train_texts, *known], config.vocab_size)
    train = _documents(tokenizer, train_texts)
    val = _documents(tokenizer, val_texts)
    floor = _floor(told, val, tokenizer) if told else None
    report = {
        "source": config.source if isinstance(config.source, str) else list(config.source),
        "tokenizer": tokenizer.kind,
        "vocabulary": tokenizer.vocab_size,
        "duplicates_removed": removed,
        "train": _describe(tokenizer, train, train_texts),
        "validation": _describe(tokenizer, val, val_texts),
        "near_duplicates": None if told else _resemblance(train_texts, val_texts),
        "floor": None if floor is None else {"nats": floor.nats, "accuracy": floor.accuracy},
    }
    mark = _fingerprint(config, train_texts, val_texts)
    return Dataset(config, tokenizer, train, val, train_texts, val_texts, floor, report, mark)


def _prepared(config: DataConfig, tokenizer: Tokenizer | None) -> Dataset:
    """A prepared directory, whose tokens stay in their files."""
    if len(config.source) > 1:
        raise StoriesError("a prepared directory cannot be mixed with other sources; name it alone")
    path = Path(config.source[0])
    prepared = shards.load(path)
    index = prepared.index
    for field in fields(DataConfig):
        asked, there = getattr(config, field.name), getattr(index.config, field.name)
        if field.name != "source" and asked not in (field.default, there):
            raise StoriesError(
                f"{path} was prepared with {field.name} {there}, not {asked}; leave it out, or prepare again"
            )
    if tokenizer is not None and tokenizer.backend.to_str() != prepared.tokenizer.backend.to_str():
        raise StoriesError(
            f"{path} was prepared with another tokenizer; prepare it again, or train a new run"
        )
    train_texts, val_texts = (
        shards.Decoded(documents, prepared.tokenizer) for documents in (prepared.train, prepared.val)
    )
    floor = None
    if index.config.source == "stories" and not sum(shard.unknown for shard in index.validation):
        told = [built_in.walk(words(text)) for text in val_texts]
        floor = _floor(told, prepared.val, prepared.tokenizer)
    report = {
        "source": str(path),
        "tokenizer": prepared.tokenizer.kind,
        "vocabulary": prepared.tokenizer.vocab_size,
        "duplicates_removed": index.duplicates_removed,
        "train": _describe_shards(index.train),
        "validation": _describe_shards(index.validation),
        "near_duplicates": index.near_duplicates,
        "floor": None if floor is None else {"nats": floor.nats, "accuracy": floor.accuracy},
    }
    return Dataset(
        config,
        prepared.tokenizer,
        prepared.train,
        prepared.val,
        train_texts,
        val_texts,
        floor,
        report,
        index.fingerprint,
    )


def _describe_shards(parts: Sequence[shards.Shard]) -> dict:
    stories, tokens, unknown, text_bytes = (
        sum(getattr(shard, name) for shard in parts)
        for name in ("stories", "tokens", "unknown", "text_bytes")
    )
    return {
        "stories": stories,
        "tokens": tokens + stories,
        "bytes": text_bytes,
        "mean_length": tokens / stories,
        "max_length": max(shard.longest for shard in parts),
        "unknown_rate": unknown / tokens,
    }


def validation_seed(seed: int) -> str:
    """The seed of the built-in stories held out, where those trained on have ``seed`` itself."""
    return f"{seed} validation"


def _tell(config: DataConfig) -> tuple[list[str], list[built_in.Story], int]:
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
    return train, fresh, removed


def _tinystories(config: DataConfig) -> tuple[list[str], list[str], int]:
    """TinyStories in its own split; a training story that also is a validation story is left out."""
    seen: set[bytes] = set()
    read = _Counted(read_documents([download("validation")], separator="endoftext"))
    val = list(islice(distinct(read, seen), config.validation or MOST_VALIDATION))
    removed = read.count - len(val)
    read = _Counted(read_documents([download("train")], separator="endoftext"))
    train = list(islice(distinct(read, seen), config.stories or DEFAULT_STORIES["tinystories"]))
    return train, val, removed + read.count - len(train)


def _from_files(config: DataConfig) -> tuple[list[str], list[str], int]:
    read = _Counted(read_documents(config.source, field=config.field, separator=config.separator))
    texts = list(distinct(read, set()))
    train, val = split(texts, method=config.split, validation=config.validation, seed=config.seed)
    return train[: config.stories], val, read.count - len(texts)


class _Counted:
    """An iterable that knows how many items were taken from it."""

    def __init__(self, items: Iterable[str]):
        self.items = iter(items)
        self.count = 0

    def __iter__(self):
        for item in self.items:
            self.count += 1
            yield item


def _documents(tokenizer: Tokenizer, texts: Sequence[str]) -> Documents:
    documents = Documents.of(tokenizer.encode_batch(texts))
    if not documents.lengths.all():
        empty = texts[int(np.argmin(documents.lengths))]
        raise StoriesError(f"a story without a single {tokenizer.kind} token: {empty[:40]!r}; take it out")
    return documents


def _describe(tokenizer: Tokenizer, documents: Documents, texts: Sequence[str]) -> dict:
    return {
        "stories": len(documents),
        "tokens": documents.targets,
        "bytes": sum(len(text.encode("utf-8")) for text in texts),
        "mean_length": float(documents.lengths.mean()),
        "max_length": int(documents.lengths.max()),
        "unknown_rate": tokenizer.unknown_rate([documents.tokens]),
    }


def _resemblance(train: Sequence[str], val: Sequence[str]) -> dict:
    found = near_duplicates(train, val)
    return {
        **asdict(found),
        "examples": [
            {"validation": val[j][:80], "train": train[i][:80], "similarity": round(similarity, 2)}
            for j, i, similarity in found.examples
        ],
    }


def _floor(told: list[built_in.Story], val: Documents, tokenizer: Tokenizer) -> Floor | None:
    """The floor of built-in stories in the tokens of ``val``; None where unknown tokens blur the words."""
    if tokenizer.unknown_rate([val.tokens]):
        return None
    nats = np.concatenate([story.nats for story in told])
    if tokenizer.kind != "word":  # several tokens a word: only their sum is known
        return Floor(float(nats.sum(dtype=np.float64)) / val.targets, None, {}, None, None, None)
    entropy = np.concatenate([story.entropy for story in told])
    best = np.concatenate([story.best for story in told])
    kind = np.concatenate([story.kind for story in told])
    by_kind = {}
    for index, name in enumerate(built_in.KINDS):
        here = kind == index
        by_kind[name] = {
            "share": float(here.mean()),
            "nats": float(nats[here].mean(dtype=np.float64)),
            "accuracy": float(best[here].mean(dtype=np.float64)),
        }
    return Floor(
        float(nats.mean(dtype=np.float64)), float(best.mean(dtype=np.float64)), by_kind, entropy, best, kind
    )


def _fingerprint(config: DataConfig, train: Sequence[str], val: Sequence[str]) -> str:
    digest = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode())
    for texts in (train, val):
        digest.update(b"\1")
        for text in texts:
            digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()
