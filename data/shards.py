"""A prepared directory: token shards that are mapped into memory, and an index that vouches for them.

    DIR/shards.json                  the index: configuration, counts, and the SHA-256 of everything
        tokenizer.json               the tokenizers library's own format
        train-<n>-<hash>.tokens      uint16 or uint32, little-endian, whole stories one after another
        train-<n>-<hash>.lengths     uint32, the tokens of each story
        validation-<n>-<hash>...     likewise

``<hash>`` is the beginning of the tokens' SHA-256. The index is written last, so a directory that has one is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlxstories.data.config import DataConfig
from mlxstories.data.packing import Documents
from mlxstories.data.tokenizer import Tokenizer
from mlxstories.errors import StoriesError
from mlxstories.storage.files import sha256, write_json
from mlxstories.storage.serialize import from_dict, read_json, to_dict

FORMAT = "mlxstories shards 1"
INDEX, PREPARING, TOKENIZER = "shards.json", "preparing.json", "tokenizer.json"
_AGAIN = "delete it and prepare it again"


@dataclass(frozen=True)
class Shard:
    """Two files of one name, ``.tokens`` and ``.lengths``.

    Attributes:
        name: of the files, without a suffix.
        stories, tokens: in it, the ends of stories not counted.
        unknown: tokens that are UNKNOWN.
        longest: tokens of its longest story.
        text_bytes: of the stories' texts in UTF-8.
        tokens_sha256, lengths_sha256: of the two files.
    """

    name: str
    stories: int
    tokens: int
    unknown: int
    longest: int
    text_bytes: int
    tokens_sha256: str
    lengths_sha256: str


@dataclass(frozen=True)
class Index:
    """What ``shards.json`` says.

    Attributes:
        config: the sources, and how they were read, split and tokenised.
        identity: SHA-256 of the sources' content and of these settings.
        tokenizer_sha256: of ``tokenizer.json``.
        dtype: of the tokens, uint16 or uint32.
        train, validation: the shards in order.
        duplicates_removed, empty_removed: stories left out as repetitions and for having no token.
        near_duplicates: what :func:`mlxstories.data.splits.near_duplicates` found, or None.
    """

    config: DataConfig
    identity: str
    tokenizer_sha256: str
    dtype: str
    train: tuple[Shard, ...]
    validation: tuple[Shard, ...]
    duplicates_removed: int
    empty_removed: int
    near_duplicates: dict[str, Any] | None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all of it, and so of every story and the tokenizer."""
        return _digest(to_dict(self))

    def write(self, path: Path) -> None:
        """Write it to the directory ``path``, whose other files must be there."""
        write_json(path / INDEX, {"format": FORMAT, "sha256": self.fingerprint, **to_dict(self)})

    @classmethod
    def read(cls, path: Path) -> Index:
        """The index of the directory ``path``.

        Raises:
            StoriesError: it is damaged, or none of ours.
        """
        content = read_json(path / INDEX)
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise StoriesError(
                f"{path / INDEX} is not an index of prepared stories of this version; {_AGAIN}"
            )
        if content.pop("sha256", None) != _digest(content):
            raise StoriesError(f"{path / INDEX} is damaged: its SHA-256 differs; {_AGAIN}")
        return from_dict(cls, content, str(path / INDEX))


class MappedTokens:
    """The tokens of shards, read as one long array.

    Files are mapped when they are first read; :meth:`release` gives their pages back.
    """

    def __init__(self, files: Sequence[Path], counts: Sequence[int], dtype: str):
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self._files = list(files)
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self.release()

    def release(self) -> None:
        """Forget the mappings and the pages of the files that are in memory through them."""
        self._maps: list[np.ndarray | None] = [None] * len(self._files)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _map(self, shard: int) -> np.ndarray:
        if self._maps[shard] is None:
            try:
                self._maps[shard] = np.memmap(self._files[shard], dtype=self.dtype, mode="r")
            except OSError as error:
                raise StoriesError(f"cannot read {self._files[shard]}: {error.strerror or error}") from error
        return self._maps[shard]

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
        """Tokens of a slice without a step, or at int64 indices [N]; a copy."""
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        shard = np.searchsorted(self._starts, index, side="right") - 1
        found = np.empty(len(index), dtype=self.dtype)
        for number in np.unique(shard):
            here = shard == number
            found[here] = self._map(number)[index[here] - self._starts[number]]
        return found


class Decoded(Sequence[str]):
    """The texts of documents, each decoded when it is asked for."""

    def __init__(self, documents: Documents, tokenizer: Tokenizer):
        self._documents, self._tokenizer = documents, tokenizer

    def __len__(self) -> int:
        return len(self._documents)

    def __getitem__(self, index: int) -> str:
        return self._tokenizer.decode(self._documents[index])


@dataclass(frozen=True, eq=False)
class Prepared:
    """An open directory: its index, tokenizer, training stories in mapped files, and held-out ones in memory."""

    index: Index
    tokenizer: Tokenizer
    train: Documents
    val: Documents


def is_prepared(path: Path) -> bool:
    """Whether ``path`` is a prepared directory, if only in part."""
    return any(os.path.isfile(path / name) for name in (INDEX, PREPARING))


def load(path: Path) -> Prepared:
    """Open a prepared directory.

    Checked are the index, the tokenizer, the lengths of the stories and the sizes of all files, not the
    tokens themselves; :func:`verify` reads those too. Held in memory are 8 bytes a story and the held-out tokens.

    Raises:
        StoriesError: the directory is half-written or damaged.
    """
    if not (path / INDEX).is_file():
        raise StoriesError(
            f"{path} is not fully prepared: run the same `mlxstories data prepare` again, and it goes on where "
            "it stopped"
        )
    index = Index.read(path)
    _check(path / TOKENIZER, index.tokenizer_sha256)
    tokenizer = Tokenizer.load(path / TOKENIZER)
    train, val = (documents(path, shards, index.dtype) for shards in (index.train, index.validation))
    return Prepared(index, tokenizer, train, Documents(val.tokens[:], val.offsets))


def documents(path: Path, shards: Sequence[Shard], dtype: str) -> Documents:
    """The stories of shards in the directory ``path``, their lengths checked."""
    lengths, files = [], []
    for shard in shards:
        if Path(shard.name).name != shard.name:
            raise StoriesError(f"{path / INDEX} names a file outside of {path}: {shard.name!r}; {_AGAIN}")
        file = path / f"{shard.name}.lengths"
        _check(file, shard.lengths_sha256)
        lengths.append(np.fromfile(file, dtype="<u4").astype(np.int64))
        files.append(path / f"{shard.name}.tokens")
        size = files[-1].stat().st_size if files[-1].is_file() else -1
        if size != shard.tokens * np.dtype(dtype).itemsize or int(lengths[-1].sum()) != shard.tokens:
            raise StoriesError(f"{files[-1]} is missing or damaged: not {shard.tokens:,} tokens; {_AGAIN}")
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    return Documents(MappedTokens(files, [shard.tokens for shard in shards], dtype), offsets)


def verify(path: Path) -> Prepared:
    """Open a prepared directory and check every byte of it.

    Raises:
        StoriesError: what is wrong first.
    """
    prepared = load(path)
    for shard in (*prepared.index.train, *prepared.index.validation):
        _check(path / f"{shard.name}.tokens", shard.tokens_sha256)
    return prepared


def _check(file: Path, expected: str) -> None:
    if not file.is_file():
        raise StoriesError(f"{file} is missing; {_AGAIN}")
    try:
        actual = sha256(file)
    except OSError as error:
        raise StoriesError(f"cannot read {file}: {error.strerror or error}") from error
    if actual != expected:
        raise StoriesError(f"{file} is damaged: its SHA-256 differs from the index; {_AGAIN}")


def _digest(content: dict) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
