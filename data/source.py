"""The built-in stories: a source of text whose every next word has a known distribution.

A story is told by a program over choices. The alternatives of a choice are word sequences of which none
begins another, so that the words told so far determine the state of the program: the conditional
distribution of each next word, its entropy and its most probable word are exact.
"""

from __future__ import annotations

import random
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from mlxstories.data.lexicon import FORMS, LISTS
from mlxstories.data.tales import PARTS
from mlxstories.errors import StoriesError

KINDS = ("choice", "recall", "fixed")
_VOWELS = ("a", "e", "i", "o", "u", "hon")
CHOICE, RECALL, FIXED = range(3)


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
    same = next((i for i, (a, b) in enumerate(zip(words, told, strict=False)) if a != b), None)
    return _story(told, records), min(len(words), len(told)) + (words == told) if same is None else same


def _follow(words: list[str]) -> tuple[list[str], list[np.ndarray]]:
    """The words of the story that makes the choices of ``words``, or at each the one most like it, and records."""

    def pick(choice: _Choice, told: list[str], memory: dict[str, str]) -> _Alternative:
        here = words[len(told) :]

        def agreement(alternative: _Alternative) -> int:
            prefix = " ".join(memory.get(word, word) for word in alternative.prefix).split(" ")
            pairs = zip(prefix, here, strict=False)
            return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(prefix), len(here)))

        return max(choice.alternatives, key=agreement)

    return _tell(pick)


@cache
def vocabulary() -> frozenset[str]:
    """Every word that the source can tell."""
    found: set[str] = set()
    waiting = list(_program())
    while waiting:
        node = waiting.pop()
        if isinstance(node, _Told):
            found.update(node.words)
        elif isinstance(node, _Choice):
            for alternative in node.alternatives:
                waiting.extend(alternative.program)
                found.update(word for value in alternative.remembers.values() for word in value.split(" "))
    return frozenset(found)


def _checked(count: int) -> int:
    if count < 1:
        raise StoriesError(f"stories must be at least 1; got {count}")
    return count


def _cannot_tell(words: list[str], told: list[str]) -> StoriesError:
    same = next((i for i, (a, b) in enumerate(zip(words, told, strict=False)) if a != b), None)
    place = min(len(words), len(told)) if same is None else same
    word = repr(words[place]) if place < len(words) else "the end"
    return StoriesError(f"the built-in stories never continue with {word} at word {place + 1}")


# The program: what is told, told again, or chosen.


class _Told(NamedTuple):
    words: tuple[str, ...]
    record: np.ndarray  # float32 [4, words]: nats, entropy, best, kind


class _Again(NamedTuple):
    key: str
    record: np.ndarray | None  # where it is itself an alternative; else certain


class _Choice(NamedTuple):
    alternatives: tuple[_Alternative, ...]
    thresholds: tuple[float, ...]


class _Alternative(NamedTuple):
    prefix: tuple[str, ...]  # the words, or {keys}, that tell this alternative from the others
    program: tuple[_Told | _Again | _Choice, ...]
    remembers: dict[str, str]


_Pick = Callable[[_Choice, list, dict], _Alternative]


def _picker(seed: int | str) -> _Pick:
    draw = random.Random(seed).random

    def pick(choice: _Choice, told: list[str], memory: dict[str, str]) -> _Alternative:
        return choice.alternatives[bisect_right(choice.thresholds, draw())]

    return pick


def _tell(pick: _Pick) -> tuple[list[str], list[np.ndarray]]:
    """The words of a story whose choices ``pick`` makes, and their records."""
    told: list[str] = []
    records: list[np.ndarray] = []
    memory: dict[str, str] = {}
    waiting = [iter(_program())]
    while waiting:
        for node in waiting[-1]:
            if type(node) is _Told:
                told.extend(node.words)
                records.append(node.record)
            elif type(node) is _Again:
                words = memory[node.key].split(" ")
                told.extend(words)
                records.append(_certain(len(words), RECALL) if node.record is None else node.record)
            else:
                alternative = pick(node, told, memory)
                if alternative.remembers:
                    memory.update(alternative.remembers)
                waiting.append(iter(alternative.program))
                break
        else:
            waiting.pop()
    return told, records


@cache
def _certain(count: int, kind: int) -> np.ndarray:
    record = np.zeros((4, count), dtype=np.float32)
    record[2], record[3] = 1.0, kind
    return record


def _story(told: list[str], records: list[np.ndarray]) -> Story:
    record = np.concatenate([*records, _certain(1, FIXED)], axis=1)
    return Story(_spell(told), tuple(told), record[0], record[1], record[2], record[3].astype(np.uint8))


def _spell(words: list[str]) -> str:
    text = " ".join(words)
    for mark in ".,!?”":
        text = text.replace(" " + mark, mark)
    return text.replace("“ ", '"').replace("”", '"')


# Reading the notation of tales.py and lexicon.py.

_NOTATION = re.compile(
    r"(?P<again>\{[\w.]+\})|\[(?P<draw>[^\]]+)\]|(?P<mark>[<|>])|(?P<weight>\d+): "
    r"|(?P<word>[A-Za-z]+(?:['-][A-Za-z]+)*|[.,!?]|(?<![^\s<|])\"|\")"
)


@cache
def _program() -> tuple[_Told | _Again | _Choice, ...]:
    text = "@START"
    while "@" in text:
        text = re.sub(r"@([A-Z]+)", lambda part: PARTS[part[1]].strip(), text)
    tokens = []
    for match in _NOTATION.finditer(text):
        token = match[match.lastgroup]
        if token == '"':
            token = "“" if match.start() == 0 or text[match.start() - 1] in " \n<|" else "”"
        tokens.append((match.lastgroup, token))
    return _sequence(tokens[::-1])


def _sequence(tokens: list[tuple[str, str]]) -> tuple:
    """Nodes up to the end of the text or of an alternative; neighbouring words are joined."""
    nodes: list = []
    words: list[str] = []

    def close() -> None:
        if words:
            nodes.append(_Told(tuple(words), _certain(len(words), FIXED)))
            words.clear()

    while tokens and tokens[-1] not in (("mark", "|"), ("mark", ">")):
        what, token = tokens.pop()
        if what == "word":
            words.append(token)
            continue
        close()
        if what == "again":
            nodes.append(_Again(token, None))
        elif what == "draw":
            nodes.append(_drawn(token))
        else:
            nodes.append(_branch(tokens))
    close()
    return tuple(nodes)


def _branch(tokens: list[tuple[str, str]]) -> _Choice:
    options = []
    while True:
        weight = int(tokens.pop()[1]) if tokens[-1][0] == "weight" else 1
        program = _sequence(tokens)
        prefix: list[str] = []
        rest = 0
        for node in program:  # words and recalled words up to the next choice
            if isinstance(node, _Choice):
                break
            prefix.extend(node.words if isinstance(node, _Told) else [node.key])
            rest += 1
        options.append((weight, tuple(prefix), program[rest:], {}))
        if tokens.pop()[1] == ">":
            return _choice(options)


@cache
def _drawn(token: str) -> _Choice:
    """The choice ``[list]``, ``[a list]`` or ``[list=name]``."""
    name, _, key = token.partition("=")
    article, _, name = name.rpartition(" ")
    options = []
    for weight, value, forms in _entries(name):
        words = value.split(" ")
        if article:
            first = "an" if value.startswith(_VOWELS) else "a"
            words.insert(0, first.capitalize() if article == "a-cap" else first)
        remembers = {f"{{{key}}}": value} if key else {}
        if key and forms:
            he, his, him = forms
            told = {"he": he, "He": he.capitalize(), "his": his, "His": his.capitalize(), "him": him}
            remembers |= {f"{{{key}.{form}}}": word for form, word in told.items()}
        options.append((weight, tuple(words), (), remembers))
    return _choice(options)


def _entries(name: str) -> Iterator[tuple[int, str, tuple[str, ...] | None]]:
    if name == "child":
        for part in ("girl", "boy"):
            yield from _entries(part)
        return
    for entry in LISTS[name].split(","):
        value, _, weight = " ".join(entry.split()).partition("*")
        yield int(weight or 1), value, FORMS.get(name)


def _choice(options: list[tuple[int, tuple[str, ...], tuple, dict]]) -> _Choice:
    """The choice among (weight, prefix, program after it, what it remembers)."""
    prefixes = [prefix for _, prefix, _, _ in options]
    for prefix in prefixes:
        if not prefix or sum(other[: len(prefix)] == prefix for other in prefixes) > 1:
            raise ValueError(f"an alternative is empty or begins another: {' '.join(prefix)!r}")
    alternatives = []
    for _, prefix, program, remembers in options:
        record = np.array([_next_word(options, prefix, depth) for depth in range(len(prefix))], np.float32).T
        nodes = [
            _Again(word, record[:, i : i + 1])
            if word.startswith("{")
            else _Told((word,), record[:, i : i + 1])
            for i, word in enumerate(prefix)
        ]
        alternatives.append(_Alternative(prefix, (*_joined(nodes), *program), remembers))
    total = sum(weight for weight, *_ in options)
    thresholds = tuple(mass / total for mass in accumulate(weight for weight, *_ in options))[:-1]
    return _Choice(tuple(alternatives), thresholds)


def _next_word(options: list, prefix: tuple[str, ...], depth: int) -> tuple[float, float, float, int]:
    """(nats, entropy, best, kind) of ``prefix[depth]`` among the options that agree so far."""
    masses: dict[str, int] = {}
    for weight, other, *_ in options:
        if other[:depth] == prefix[:depth]:
            masses[other[depth]] = masses.get(other[depth], 0) + weight
    p = np.array(list(masses.values())) / sum(masses.values())
    if len(p) == 1:
        return 0.0, 0.0, 1.0, RECALL if prefix[depth].startswith("{") else FIXED
    mine = masses[prefix[depth]] / sum(masses.values())
    return -np.log(mine), -float(p @ np.log(p)), float(p.max()), CHOICE


def _joined(nodes: list) -> Iterator:
    """Neighbouring words as one node."""
    words: list[_Told] = []
    for node in [*nodes, None]:
        if isinstance(node, _Told):
            words.append(node)
            continue
        if words:
            told = tuple(word for part in words for word in part.words)
            yield _Told(told, np.concatenate([part.record for part in words], axis=1))
            words = []
        if node is not None:
            yield node
