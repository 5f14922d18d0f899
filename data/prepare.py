"""From sources of any size to a prepared directory, in bounded memory, going on where a stopped one ended.

The sources are read three times: for their SHA-256, for the survey with the vocabulary, and for the tokens. The
tokens are written shard by shard, and ``preparing.json`` notes each shard that is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from mlxstories.data import source as built_in
from mlxstories.data.config import DataConfig
from mlxstories.data.shard_writer import ShardWriter
from mlxstories.data.shards import INDEX, PREPARING, TOKENIZER, Decoded, Index, Shard, documents, is_prepared
from mlxstories.data.splits import near_duplicates
from mlxstories.data.survey import LEFT_OUT, TRAIN, Survey, files, identity, read
from mlxstories.data.tokenizer import Tokenizer, chunks
from mlxstories.errors import StoriesError
from mlxstories.storage.files import (
    remove_directory,
    remove_partial,
    sha256,
    sync,
    write_json,
    writing,
)
from mlxstories.storage.lock import locked
from mlxstories.storage.serialize import from_dict, read_json, to_dict

SHARD_TOKENS = 2**25  # of a shard, 64 MB of 16-bit tokens
VOCABULARY_LENGTH = 2**28  # characters of training stories that a vocabulary is learned from
PARTS = "preparing.parts"

Report = Callable[[str, int, int | None], None]
"""Receives the stage (checking, sorting, tokenising, comparing), and bytes done and in all, None if not known."""


@dataclass(frozen=True)
class _Journal:
    """What is done of a preparation: ``read`` stories are in the whole shards, or left out for good.

    Until the survey is done there is no tokenizer, and nothing that other sources could be mixed with.
    """

    identity: str
    tokenizer_sha256: str = ""
    parts_sha256: str = ""
    validation: tuple[Shard, ...] = ()
    train: tuple[Shard, ...] = ()
    read: int = 0
    empty_removed: int = 0


def prepare(
    config: DataConfig,
    path: Path,
    *,
    report: Report = lambda stage, done, total: None,
    shard_tokens: int = SHARD_TOKENS,
) -> Index:
    """Tokenise the stories of ``config`` into the directory ``path``; one that is there already is left as it is.

    As :func:`load_dataset` does it: no story twice, none in both splits, the vocabulary from training stories
    alone (their first 268 million characters). Memory: 9 bytes a story, the held-out stories, and a chunk of
    about 4 million characters on its way, whatever the size of the sources.

    Raises:
        StoriesError: the sources cannot be read or split, ``path`` holds something else, or it cannot be
            written.
    """
    path = Path(path)
    sources = _stamps(config)
    total = sum(size for _, size, _ in sources) or None
    if path.exists() and not path.is_dir():
        raise StoriesError(f"{path} is a file; name a new directory by --to")
    if path.is_dir() and not is_prepared(path) and any(name != ".lock" for name in os.listdir(path)):
        raise StoriesError(f"{path} holds something else; name a new or empty directory by --to")
    new = not path.exists()
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    with locked(path), _removed_if_refused(path if new else None):
        mark = identity(config, _Meter("checking", total, report))
        if (path / INDEX).is_file():
            return _same(Index.read(path), mark, path)
        remove_partial(path)
        journal = _Journal(mark)
        if (path / PREPARING).is_file():
            journal = from_dict(_Journal, read_json(path / PREPARING), str(path / PREPARING))
        if journal.tokenizer_sha256:
            _same(journal, mark, path)
        else:
            write_json(path / PREPARING, to_dict(_Journal(mark)))  # a directory of ours from now on
            journal = _survey(config, mark, path, _Meter("sorting", total, report))
        journal = _tokenise(config, journal, path, shard_tokens, _Meter("tokenising", total, report))
        if _stamps(config) != sources:
            raise StoriesError(
                "a source changed while it was read; delete the directory and prepare it again"
            )
        report("comparing", 0, None)
        return _finish(config, journal, path)


@contextlib.contextmanager
def _removed_if_refused(path: Path | None) -> Iterator[None]:
    """Bad input is found by the survey; until that is done there is nothing to go on with in a new directory."""
    try:
        yield
    except StoriesError:
        journal = path and path / PREPARING
        if journal and not (journal.is_file() and read_json(journal)["tokenizer_sha256"]):
            remove_directory(path)
        raise


class _Meter:
    """Adds up what was done in a stage and reports it."""

    def __init__(self, stage: str, total: int | None, report: Report):
        self._stage, self._total, self._report, self._done = stage, total, report, 0

    def __call__(self, count: int) -> None:
        self._done += count
        self._report(self._stage, self._done, self._total)


def _stamps(config: DataConfig) -> list[tuple[str, int, int]]:
    found = []
    for file in files(config):
        if is_prepared(file.parent):
            raise StoriesError(f"{file.parent} is prepared already: train on it by --data {file.parent}")
        if not file.is_file():
            raise StoriesError(f"{file} is not a file; it is read three times, so it cannot be a pipe")
        stat = file.stat()
        found.append((str(file), stat.st_size, stat.st_mtime_ns))
    return found


def _same(prepared, mark: str, path: Path):
    if prepared.identity != mark:
        raise StoriesError(
            f"{path} holds other stories or the same ones read, split or tokenised differently; "
            "name another directory by --to, or delete it"
        )
    return prepared


def _survey(config: DataConfig, mark: str, path: Path, report: Callable[[int], None]) -> _Journal:
    survey = Survey(config, report)
    texts = survey.training_texts()
    known = [built_in.every_word()] if config.source == "stories" else []
    tokenizer = Tokenizer.train(config.tokenizer, _first(texts, known), config.vocab_size)
    for _ in texts:  # what the vocabulary did not need
        pass
    tokenizer.save(path / TOKENIZER)
    with writing(path):
        (path / PARTS).write_bytes(survey.parts)
        sync(path / PARTS)
    writer = ShardWriter(path, "validation", 0, tokenizer)
    empty = sum(writer.add(chunk) for chunk in chunks(survey.held_out))
    if not writer.shard.stories:
        raise StoriesError(f"no held-out story has a single {tokenizer.kind} token; give other stories")
    journal = _Journal(
        identity=mark,
        tokenizer_sha256=sha256(path / TOKENIZER),
        parts_sha256=hashlib.sha256(survey.parts).hexdigest(),
        validation=(writer.close(),),
        empty_removed=empty,
    )
    write_json(path / PREPARING, to_dict(journal))
    return journal


def _first(texts: Iterator[str], known: list[str]) -> Iterator[str]:
    length = 0
    yield from known
    for text in texts:
        yield text
        length += len(text)
        if length >= VOCABULARY_LENGTH:
            return


def _tokenise(
    config: DataConfig, journal: _Journal, path: Path, shard_tokens: int, report: Callable[[int], None]
) -> _Journal:
    """Write the shards of training stories that are missing."""
    for name, expected in ((TOKENIZER, journal.tokenizer_sha256), (PARTS, journal.parts_sha256)):
        if not (path / name).is_file() or sha256(path / name) != expected:
            raise StoriesError(f"{path / name} is missing or damaged; delete {path} and prepare it again")
    tokenizer = Tokenizer.load(path / TOKENIZER)
    parts = (path / PARTS).read_bytes()
    report(sum(shard.text_bytes for shard in journal.train))
    stories = islice(enumerate(read(config)), journal.read, len(parts))
    training = ((place, text) for place, (_, text) in stories if parts[place] == TRAIN)
    writer, empty = None, 0
    for chunk in chunks(training, text=lambda item: item[1]):
        writer = writer or ShardWriter(path, "train", len(journal.train), tokenizer)
        before = writer.shard.text_bytes
        empty += writer.add([text for _, text in chunk])
        report(writer.shard.text_bytes - before)
        if writer.shard.tokens >= shard_tokens:
            journal = _noted(journal, writer, chunk[-1][0] + 1, empty, path)
            writer, empty = None, 0
    if writer is not None and writer.shard.stories:
        journal = _noted(journal, writer, len(parts), empty, path)
    else:
        journal = replace(journal, empty_removed=journal.empty_removed + empty)
    if not journal.train:
        raise StoriesError(f"no training story has a single {tokenizer.kind} token; give other stories")
    return journal


def _noted(journal: _Journal, writer: ShardWriter, read: int, empty: int, path: Path) -> _Journal:
    shards = (*journal.train, writer.close())
    journal = replace(journal, train=shards, read=read, empty_removed=journal.empty_removed + empty)
    write_json(path / PREPARING, to_dict(journal))
    return journal


def _finish(config: DataConfig, journal: _Journal, path: Path) -> Index:
    tokenizer = Tokenizer.load(path / TOKENIZER)
    dtype = np.dtype(tokenizer.dtype).name
    resembling = None
    if config.source != "stories":
        train, val = (
            Decoded(documents(path, shards, dtype), tokenizer)
            for shards in (journal.train, journal.validation)
        )
        resembling = asdict(near_duplicates(train, val, examples=0))
    index = Index(
        config=config,
        identity=journal.identity,
        tokenizer_sha256=journal.tokenizer_sha256,
        dtype=dtype,
        train=journal.train,
        validation=journal.validation,
        duplicates_removed=(path / PARTS).read_bytes().count(LEFT_OUT),
        empty_removed=journal.empty_removed,
        near_duplicates=resembling,
    )
    named = {shard.name for shard in (*index.train, *index.validation)}
    for file in path.iterdir():  # a kill may have left shards that no index names
        if file.suffix in (".tokens", ".lengths") and file.stem not in named:
            file.unlink()
    index.write(path)
    for name in (PREPARING, PARTS):
        (path / name).unlink(missing_ok=True)
    return index
