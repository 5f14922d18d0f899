"""What a told story shares with the training text: the longest passage, word for word."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mlxstories.data.tokenizer import words

_LEAST = 5  # words of a passage; shorter ones are shared by most texts
_LOOKED_AT = 5_000_000  # characters of training text, some ten seconds of work


@dataclass(frozen=True)
class Passage:
    """The longest passage that a story shares with the training text.

    Attributes:
        words: their number, marks not counted.
        text: the passage.
        source: where it stands, or None where that has no name.
    """

    words: int
    text: str
    source: str | None


def longest(stories: Sequence[str], texts: Iterable[tuple[str | None, str]]) -> list[Passage | None]:
    """For each story the longest passage of at least five words that it shares with named training texts, or None.

    Read are the first 5 million characters of them.
    """
    told = [_words(story) for story in stories]
    places: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    for number, story in enumerate(told):
        for start in range(len(story) - _LEAST + 1):
            places.setdefault(tuple(story[start : start + _LEAST]), []).append((number, start))
    found: list[Passage | None] = [None] * len(stories)
    read = 0
    for name, text in texts:
        if read > _LOOKED_AT:
            break
        read += len(text)
        there = _words(text)
        for start in range(len(there) - _LEAST + 1):
            for number, place in places.get(tuple(there[start : start + _LEAST]), ()):
                length = _agreement(told[number], place, there, start)
                best = found[number]
                if best is None or length > best.words:
                    passage = " ".join(told[number][place : place + length])
                    found[number] = Passage(length, passage, name)
    return found


def _words(text: str) -> list[str]:
    """The words of a text without marks, so that other quotes and spaces make no other passage."""
    return [word for word in words(text) if word[0].isalnum()]


def _agreement(a: Sequence[str], i: int, b: Sequence[str], j: int) -> int:
    length = 0
    while i + length < len(a) and j + length < len(b) and a[i + length] == b[j + length]:
        length += 1
    return length
