"""How the subject's tokenizer fits its batches and texts."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.data.texts import ids_of
from mlxstories.ladder.bench.epoch import Epoch
from mlxstories.ladder.bench.epochs import epochs, train_epoch, val_epoch
from mlxstories.ladder.subject import describe_error

_WORD = re.compile(r"\w+", re.UNICODE)
_PHRASE = 4  # words
_PHRASES = 240  # looked up
CORPUS = 20_000  # texts in which what is decoded is looked up
_ENCODED = 24  # texts
_BATCHES, _ROWS = 8, 4  # batches, and rows of each, that are decoded
_STRANGE = ("\u2603", "\u16a0", "\U0001f9ff")  # a snowman, a rune, an amulet
_MARKS = 0.1  # of the ids, that a tokenizer need not know
_SEARCHED = 200  # texts that are searched for the word of an unknown id


@dataclass(frozen=True)
class Phrases:
    """How many phrases of decoded rows were looked up in the texts, and the share that was found there."""

    share: float
    count: int


@dataclass(frozen=True)
class Fit:
    """How well tokenizer, batches and texts go together.

    Attributes:
        highest: the highest id that the tokenizer gives to the texts.
        own: phrases of texts that it encoded and decoded; None where its ids leave the vocabulary.
        rows: phrases of rows of the batches that it decoded; None where it cannot.
        highest_row: the highest id of these rows.
        problem: why it cannot decode them.
    """

    highest: int
    own: Phrases | None = None
    rows: Phrases | None = None
    highest_row: int = 0
    problem: str = ""


@measurement
def train_fit(bench: Bench) -> Fit | None:
    """How the tokenizer goes with the training batches and texts; None where there are no texts."""
    return _fit(bench, train_epoch(bench), bench.subject.train_texts)


@measurement
def val_fit(bench: Bench) -> Fit | None:
    """How the tokenizer goes with the validation batches and texts; None where there are no texts."""
    return _fit(bench, val_epoch(bench), bench.subject.val_texts)


def _fit(bench: Bench, epoch: Epoch, texts: Any) -> Fit | None:
    if len(texts) == 0:
        return None
    with bench.calling("the tokenizer"):
        return _compare(bench, epoch, [str(text) for text in texts])


def _compare(bench: Bench, epoch: Epoch, texts: list[str]) -> Fit:
    tokenizer = bench.subject.tokenizer
    encoded = [ids_of(tokenizer, text) for text in spread(texts)]
    highest = max((max(ids) for ids in encoded if ids), default=0)
    if highest >= bench.subject.vocab_size:
        return Fit(highest)
    corpus = " ".join(" ".join(_WORD.findall(text.lower())) for text in texts[:CORPUS])
    own = _known([str(tokenizer.decode(ids)) for ids in encoded], corpus)
    rows = real_rows(epoch)
    highest_row = max((i for ids in rows for i in ids), default=0)
    try:
        decoded = [str(tokenizer.decode(ids)) for ids in rows]
    except Exception as error:  # ids that this tokenizer does not have
        decoded = _between_marks(tokenizer, rows)
        if decoded is None:
            return Fit(highest, own, None, highest_row, describe_error(error))
    return Fit(highest, own, _known(decoded, corpus), highest_row)


def _between_marks(tokenizer: Any, rows: list[list[int]]) -> list[str] | None:
    """What stands between the few ids that the tokenizer does not have, such as marks added to its vocabulary, decoded;
    None where they are many, or the rest cannot be decoded either."""
    strange = {i for i in {i for ids in rows for i in ids} if not _decodes(tokenizer, [i])}
    if sum(i in strange for ids in rows for i in ids) > _MARKS * sum(map(len, rows)):
        return None
    marked = (itertools.groupby(ids, key=strange.__contains__) for ids in rows)
    pieces = [list(part) for row in marked for mark, part in row if not mark]
    try:
        return [str(tokenizer.decode(ids)) for ids in pieces]
    except Exception:
        return None


def _decodes(tokenizer: Any, ids: list[int]) -> bool:
    try:
        tokenizer.decode(ids)
    except Exception:
        return False
    return True


def spread(texts: Sequence[str]) -> Sequence[str]:
    """A few texts, from the first to nearly the last, which are encoded and decoded for comparison."""
    return texts[:: max(1, len(texts) // _ENCODED)][:_ENCODED]


def real_rows(epoch: Epoch) -> list[list[int]]:
    """The ids that count of a few rows of the first batches, each stretch by itself: between the answers of a talk lie
    questions that do not count, and what is parted by one is no phrase of the text."""
    return [
        [int(i) for i in row[stretch]]
        for batch in epoch.batches[:_BATCHES]
        for row, mask in list(zip(batch.inputs, batch.mask, strict=True))[:_ROWS]
        for stretch in _stretches(np.flatnonzero(mask > 0))
    ]


def _stretches(places: np.ndarray) -> list[np.ndarray]:
    """Ascending places, parted where one is left out."""
    return np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)


def _known(decoded: list[str], corpus: str) -> Phrases:
    phrases = [phrase for text in decoded for phrase in _phrases(text)][:_PHRASES]
    found = sum(phrase in corpus for phrase in phrases)
    return Phrases(found / len(phrases) if phrases else 0.0, len(phrases))


def _phrases(text: str) -> list[str]:
    words = _WORD.findall(text.lower())
    return [" ".join(words[i : i + _PHRASE]) for i in range(0, len(words) - _PHRASE + 1, _PHRASE)]


@dataclass(frozen=True)
class Unknown:
    """The id of what the tokenizer does not know, and the larger share of training's and validation's targets."""

    token: int
    share: float


@measurement
def unknown(bench: Bench) -> Unknown | None:
    """The unknown id and its share of the targets, where the tokenizer has one that no real word shares."""
    token = unknown_id(bench)
    if token is None or _stands_for_a_word(bench, token):
        return None
    shares = [
        float(np.mean(np.concatenate([(b.targets == token)[b.mask > 0] for b in epoch.batches])))
        for _, epoch in epochs(bench)
        if epoch.cells
    ]
    return Unknown(token, max(shares))


def unknown_id(bench: Bench) -> int | None:
    """The id, if any, to which the tokenizer sends what it does not know."""
    answers = set()
    with bench.calling("the tokenizer"):
        for strange in _STRANGE:
            try:
                answers.add(tuple(ids_of(bench.subject.tokenizer, strange)))
            except (KeyError, ValueError, IndexError):  # a closed vocabulary: nothing is unknown
                return None
    same = answers.pop()
    return same[0] if not answers and len(same) == 1 else None


def _stands_for_a_word(bench: Bench, token: int) -> bool:
    texts = bench.subject.train_texts
    if texts is None:
        return False
    with bench.calling("the tokenizer"):
        word = str(bench.subject.tokenizer.decode([token])).strip().lower()
    return bool(word) and any(word in str(text).lower().split() for text in list(texts)[:_SEARCHED])
