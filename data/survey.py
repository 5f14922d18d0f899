"""The first look at a corpus of any size: which stories are there, which are repeated, which are held out."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from mlxstories.data import lexicon, tales
from mlxstories.data import source as built_in
from mlxstories.data.config import DEFAULT_STORIES, DataConfig
from mlxstories.data.folder import source_files
from mlxstories.data.readers import read_documents
from mlxstories.data.splits import MOST_VALIDATION, ONE_STORY, distinct, fingerprint
from mlxstories.data.texts import validation_seed
from mlxstories.data.tinystories import download
from mlxstories.data.tokenizer import chunks
from mlxstories.errors import StoriesError
from mlxstories.storage.files import sha256

LEFT_OUT, TRAIN, VALIDATION, UNDECIDED = range(4)


def read(config: DataConfig) -> Iterator[tuple[int, str]]:
    """The stories of a configuration in order, each with the part it belongs to, duplicates included."""
    validation = config.validation or MOST_VALIDATION
    if config.source == "stories":
        for text in built_in.texts(config.stories or DEFAULT_STORIES["stories"], config.seed):
            yield TRAIN, text
        for text in built_in.texts(validation, validation_seed(config.seed)):
            yield VALIDATION, text
    elif config.source == "tinystories":
        held_out = distinct(read_documents([download("validation")], separator="endoftext"), set())
        for text in islice(held_out, validation):
            yield VALIDATION, text
        for text in read_documents([download("train")], separator="endoftext"):
            yield TRAIN, text
    else:
        for text in read_documents(config.source, field=config.field, separator=config.separator):
            yield UNDECIDED, text


def identity(config: DataConfig, report: Callable[[int], None] = lambda count: None) -> str:
    """SHA-256 of all that decides what :func:`read` yields: the bytes of the files, and how they are read.

    Where the files lie is no part of it. ``report`` receives the bytes of each block that was read.
    """
    settings = {name: value for name, value in vars(config).items() if name != "source"}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    if config.source == "stories":
        digest.update(json.dumps([tales.PARTS, lexicon.LISTS, lexicon.FORMS]).encode())
        return digest.hexdigest()
    for path in files(config):
        try:
            mark = sha256(path, report)
        except OSError as error:
            raise StoriesError(f"cannot read {path}: {error.strerror or error}") from error
        digest.update(f"{path.suffix.lower()} {mark}\n".encode())
    return digest.hexdigest()


def files(config: DataConfig) -> list[Path]:
    """The files that :func:`read` reads."""
    if config.source == "stories":
        return []
    if config.source == "tinystories":
        return [download("validation"), download("train")]
    return source_files(config.source)


class Survey:
    """Sorts the stories of a configuration into training, validation and repetitions, in bounded memory.

    Held in memory are 9 bytes a story (17 while sorted runs are merged) and the held-out stories. A story is
    known by 64 bits of its fingerprint: among ten million the chance that one is wrongly taken for a
    repetition is 3 in a million.

    Out of files the held-out stories are those with the smallest random numbers (``seeded``, drawn from the
    seed and the story) or the last ones (``tail``), so that no total need be known beforehand.

    Attributes:
        parts: LEFT_OUT, TRAIN or VALIDATION for each story in the order of :func:`read`.
        held_out: the validation stories in that order.
    """

    def __init__(self, config: DataConfig, report: Callable[[int], None] = lambda count: None):
        self._config, self._report = config, report
        self.parts = bytearray()
        self.held_out: list[str] = []
        # heap of (-rank, place, text): the largest rank goes first
        self._held: list[tuple[int, int, str]] = []
        if config.source not in DEFAULT_STORIES and config.split == "tail" and config.validation is None:
            raise StoriesError(
                "the last stories of a stream can be held out if it is said how many: --validation N"
            )
        self._wanted = config.validation or MOST_VALIDATION
        if config.stories is not None:
            self._wanted = config.validation or min(MOST_VALIDATION, max(1, config.stories // 10))

    def training_texts(self) -> Iterator[str]:
        """Reads all stories and yields the training ones, out of files not quite in order."""
        known, count = Known(), 0
        most = self._most()
        for chunk in chunks(read(self._config), text=lambda item: item[1]):
            marks = [fingerprint(text)[:8] for _, text in chunk]
            new = known.add(np.frombuffer(b"".join(marks), dtype="<u8"))
            self._report(sum(len(text) for _, text in chunk))
            for (part, text), mark, is_new in zip(chunk, marks, new.tolist(), strict=True):
                self.parts.append(part if is_new else LEFT_OUT)
                if not is_new:
                    continue
                if part == UNDECIDED:
                    yield from self._hold(mark, text)
                elif part == TRAIN:
                    yield text
                else:
                    self.held_out.append(text)
                count += part != VALIDATION
                if count == most:
                    yield from self._settle(count)
                    return
        yield from self._settle(count)

    def _most(self) -> int | None:
        """Distinct stories, the built-in held-out ones aside, after which reading ends."""
        wanted, source = self._config.stories, self._config.source
        if source == "stories":
            return None
        if source == "tinystories":
            return wanted or DEFAULT_STORIES[source]
        return None if wanted is None else wanted + self._wanted

    def _hold(self, mark: bytes, text: str) -> Iterator[str]:
        place = len(self.parts) - 1
        if self._config.split == "tail":
            rank = -place
        else:
            drawn = hashlib.blake2b(mark + str(self._config.seed).encode(), digest_size=8)
            rank = int.from_bytes(drawn.digest(), "little")
        self.parts[place] = VALIDATION
        heapq.heappush(self._held, (-rank, place, text))
        if len(self._held) > self._wanted:
            yield self._release()

    def _release(self) -> str:
        _, place, text = heapq.heappop(self._held)
        self.parts[place] = TRAIN
        return text

    def _settle(self, count: int) -> Iterator[str]:
        """With the number of stories known, hold out as many as asked for, or a tenth."""
        if not self._held:
            return
        if self._config.validation is None:
            while len(self._held) > max(1, count // 10):
                yield self._release()
        if len(self._held) == count:
            raise StoriesError(
                f"validation must leave a story to train on: 1 to {count - 1} of {count} distinct stories; "
                f"got {self._wanted}"
                if count > 1
                else ONE_STORY
            )
        self.held_out = [text for _, _, text in sorted(self._held, key=lambda held: held[1])]


class Known:
    """A growing set of 64-bit numbers, 8 bytes each: sorted runs, each at least twice as long as the next."""

    def __init__(self):
        self._runs: list[np.ndarray] = []

    def add(self, numbers: np.ndarray) -> np.ndarray:
        """Add uint64 [N]; bool [N], whether each was new, of equal ones the first."""
        new = np.zeros(len(numbers), dtype=bool)
        new[np.unique(numbers, return_index=True)[1]] = True
        for run in self._runs:
            at = np.searchsorted(run, numbers)
            new &= run[np.minimum(at, len(run) - 1)] != numbers
        run = np.sort(numbers[new])
        while len(run) and self._runs and len(self._runs[-1]) < 2 * len(run):
            run = np.sort(np.concatenate([self._runs.pop(), run]), kind="stable")
        if len(run):
            self._runs.append(run)
        return new
