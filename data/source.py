"""The built-in stories: a source of text whose every next word has a known distribution.

A story is told by a program over choices. The alternatives of a choice are word sequences of which none
begins another, so that the words told so far determine the state of the program: the conditional
distribution of each next word, its entropy and its most probable word are exact.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from mlxstories.data.notation import FIXED, RECALL, Alternative, Choice, Recall, Words, certain, program
from mlxstories.errors import StoriesError

KINDS = ("choice", "recall", "fixed")


@dataclass(frozen=True, eq=False)
class Story:
    """A story with what is known about each of its n words and its end, float32 and uint8 [n + 1].

    Attributes:
        text: the story as people write it.
        words: its n words and marks, as the word-level tokenizer sees them.
        nats: -log p of each word given the words before it.
        entropy: expected -log p at each word, in nats.
        best: probability of the most probable word.
        kind: index into KINDS: a choice among several words, the recall of an earlier choice, or fixed.
    """

    text: str
    words: tuple[str, ...]
    nats: np.ndarray
    entropy: np.ndarray
    best: np.ndarray
    kind: np.ndarray


def texts(count: int, seed: int | str) -> Iterator[str]:
    """The first ``count`` stories of a seed as text alone."""
    pick = _picker(seed)
    for _ in range(_checked(count)):
        yield _spell(_tell(pick)[0])


def stories(count: int, seed: int | str) -> list[Story]:
    """The first ``count`` stories of a seed; fewer are the beginning of more."""
    pick = _picker(seed)
    return [_story(*_tell(pick)) for _ in range(_checked(count))]


def walk(words: Sequence[str]) -> Story:
    """The story of the given words with its exact distributions.

    Raises StoriesError if the source cannot tell these words.
    """
    words = list(words)
    told, records = _follow(words)
    if told != words:
        raise _cannot_tell(words, told)
    return _story(told, records)


def beginning(words: Sequence[str]) -> tuple[Story, int]:
    """The story that follows the given words as far as the source can, and how many of them it tells.

    The number is at most that of the words; it is one more when the story also ends where they do.
    """
    words = list(words)
    told, records = _follow(words)
    return _story(told, records), _agreement(words, told) + (words == told)


def _follow(words: list[str]) -> tuple[list[str], list[np.ndarray]]:
    """The words of the story that makes the choices of ``words``, or at each the one most like it, and records."""

    def pick(choice: Choice, told: list[str], memory: dict[str, str]) -> Alternative:
        here = words[len(told) :]

        def agreement(alternative: Alternative) -> int:
            return _agreement(
                " ".join(memory.get(word, word) for word in alternative.prefix).split(" "), here
            )

        return max(choice.alternatives, key=agreement)

    return _tell(pick)


@cache
def vocabulary() -> frozenset[str]:
    """Every word that the source can tell."""
    found: set[str] = set()
    waiting = list(program())
    while waiting:
        node = waiting.pop()
        if isinstance(node, Words):
            found.update(node.words)
        elif isinstance(node, Choice):
            for alternative in node.alternatives:
                waiting.extend(alternative.program)
                found.update(word for value in alternative.remembers.values() for word in value.split(" "))
    return frozenset(found)


def every_word() -> str:
    """The vocabulary as a text, to learn a tokenizer's from: however few stories are told, no word is unknown then."""
    return " ".join(sorted(vocabulary()))


def _agreement(a: list[str], b: list[str]) -> int:
    """How many words both begin with."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _checked(count: int) -> int:
    if count < 1:
        raise StoriesError(f"stories must be at least 1; got {count}")
    return count


def _cannot_tell(words: list[str], told: list[str]) -> StoriesError:
    place = _agreement(words, told)
    word = repr(words[place]) if place < len(words) else "the end"
    return StoriesError(f"the built-in stories never continue with {word} at word {place + 1}")


_Pick = Callable[[Choice, list, dict], Alternative]


def _picker(seed: int | str) -> _Pick:
    draw = random.Random(seed).random

    def pick(choice: Choice, told: list[str], memory: dict[str, str]) -> Alternative:
        return choice.alternatives[bisect_right(choice.thresholds, draw())]

    return pick


def _tell(pick: _Pick) -> tuple[list[str], list[np.ndarray]]:
    """The words of a story whose choices ``pick`` makes, and their records."""
    told: list[str] = []
    records: list[np.ndarray] = []
    memory: dict[str, str] = {}
    waiting = [iter(program())]
    while waiting:
        for node in waiting[-1]:
            if type(node) is Words:
                told.extend(node.words)
                records.append(node.record)
            elif type(node) is Recall:
                words = memory[node.key].split(" ")
                told.extend(words)
                records.append(certain(len(words), RECALL) if node.record is None else node.record)
            else:
                alternative = pick(node, told, memory)
                if alternative.remembers:
                    memory.update(alternative.remembers)
                waiting.append(iter(alternative.program))
                break
        else:
            waiting.pop()
    return told, records


def _story(told: list[str], records: list[np.ndarray]) -> Story:
    record = np.concatenate([*records, certain(1, FIXED)], axis=1)
    return Story(_spell(told), tuple(told), record[0], record[1], record[2], record[3].astype(np.uint8))


def _spell(words: list[str]) -> str:
    text = " ".join(words)
    for mark in ".,!?”":
        text = text.replace(" " + mark, mark)
    return text.replace("“ ", '"').replace("”", '"')
