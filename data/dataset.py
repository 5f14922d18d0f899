"""From a DataConfig to token arrays, with what is known about them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mlxstories.data import shards
from mlxstories.data import source as built_in
from mlxstories.data.config import DataConfig
from mlxstories.data.packing import Documents
from mlxstories.data.splits import near_duplicates
from mlxstories.data.texts import Texts, read_texts
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

    def bits_per_character(self, loss: float) -> float:
        """A validation loss, nats per token, in bits for each character of the held-out stories.

        Unlike nats per token it means the same whatever the tokenizer. The ends of stories are tokens to predict and no
        characters. At the word level it is a lower bound: spacing costs nothing, and a word never seen costs as much as
        one token, however it is spelled.
        """
        return loss * self.val.targets / math.log(2) / self._characters

    @cached_property
    def _characters(self) -> int:
        return sum(map(len, self.val_texts))


def load_dataset(
    config: DataConfig, tokenizer: Tokenizer | None = None, texts: Texts | None = None
) -> Dataset:
    """Read or tell the stories of a configuration, split them and turn them into tokens.

    A given tokenizer is used as it is; else one is trained on the training stories alone. ``texts`` are those of the
    configuration where they have been read already. Raises StoriesError for input that cannot be read or split.
    """
    if is_prepared(config):
        return _prepared(config, tokenizer)
    train_texts, val_texts, told, removed = texts or read_texts(config)
    if tokenizer is None:
        known = [built_in.every_word()] if told else []
        tokenizer = Tokenizer.train(config.tokenizer, [*train_texts, *known], config.vocab_size)
    train = _documents(tokenizer, train_texts)
    val = _documents(tokenizer, val_texts)
    floor = _floor(told, val, tokenizer) if told else None
    report = _report(
        tokenizer,
        floor,
        source=config.source if isinstance(config.source, str) else list(config.source),
        duplicates_removed=removed,
        train=_describe(tokenizer, train, train_texts),
        validation=_describe(tokenizer, val, val_texts),
        near_duplicates=None if told else _resemblance(train_texts, val_texts),
    )
    mark = _fingerprint(config, train_texts, val_texts)
    return Dataset(config, tokenizer, train, val, train_texts, val_texts, floor, report, mark)


def is_prepared(config: DataConfig) -> bool:
    """Whether the source is a prepared directory."""
    return isinstance(config.source, tuple) and any(shards.is_prepared(Path(path)) for path in config.source)


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
    report = _report(
        prepared.tokenizer,
        floor,
        source=str(path),
        duplicates_removed=index.duplicates_removed,
        train=_describe_shards(index.train),
        validation=_describe_shards(index.validation),
        near_duplicates=index.near_duplicates,
    )
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


def _report(tokenizer: Tokenizer, floor: Floor | None, **facts: Any) -> dict:
    return {
        **facts,
        "tokenizer": tokenizer.kind,
        "vocabulary": tokenizer.vocab_size,
        "floor": None if floor is None else {"nats": floor.nats, "accuracy": floor.accuracy},
    }


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
