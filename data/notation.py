"""The notation of tales.py and lexicon.py, read into a program: what is told, told again, or chosen."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from mlxstories.data.lexicon import FORMS, LISTS
from mlxstories.data.tales import PARTS

CHOICE, RECALL, FIXED = range(3)
_VOWELS = ("a", "e", "i", "o", "u", "hon")


class Words(NamedTuple):
    words: tuple[str, ...]
    record: np.ndarray  # float32 [4, words]: nats, entropy, best, kind


class Recall(NamedTuple):
    key: str
    record: np.ndarray | None  # where it is itself an alternative; else certain


class Choice(NamedTuple):
    alternatives: tuple[Alternative, ...]
    thresholds: tuple[float, ...]


class Alternative(NamedTuple):
    prefix: tuple[str, ...]  # the words, or {keys}, that tell this alternative from the others
    program: tuple[Words | Recall | Choice, ...]
    remembers: dict[str, str]


@cache
def certain(count: int, kind: int) -> np.ndarray:
    record = np.zeros((4, count), dtype=np.float32)
    record[2], record[3] = 1.0, kind
    return record


_NOTATION = re.compile(
    r"(?P<again>\{[\w.]+\})|\[(?P<draw>[^\]]+)\]|(?P<mark>[<|>])|(?P<weight>\d+): "
    r"|(?P<word>[A-Za-z]+(?:['-][A-Za-z]+)*|[.,!?]|(?<![^\s<|])\"|\")"
)


@cache
def program() -> tuple[Words | Recall | Choice, ...]:
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
            nodes.append(Words(tuple(words), certain(len(words), FIXED)))
            words.clear()

    while tokens and tokens[-1] not in (("mark", "|"), ("mark", ">")):
        what, token = tokens.pop()
        if what == "word":
            words.append(token)
            continue
        close()
        if what == "again":
            nodes.append(Recall(token, None))
        elif what == "draw":
            nodes.append(drawn(token))
        else:
            nodes.append(_branch(tokens))
    close()
    return tuple(nodes)


def _branch(tokens: list[tuple[str, str]]) -> Choice:
    options = []
    while True:
        weight = int(tokens.pop()[1]) if tokens[-1][0] == "weight" else 1
        program = _sequence(tokens)
        prefix: list[str] = []
        rest = 0
        for node in program:  # words and recalled words up to the next choice
            if isinstance(node, Choice):
                break
            prefix.extend(node.words if isinstance(node, Words) else [node.key])
            rest += 1
        options.append((weight, tuple(prefix), program[rest:], {}))
        if tokens.pop()[1] == ">":
            return choice(options)


@cache
def drawn(token: str) -> Choice:
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
    return choice(options)


def _entries(name: str) -> Iterator[tuple[int, str, tuple[str, ...] | None]]:
    if name == "child":
        for part in ("girl", "boy"):
            yield from _entries(part)
        return
    for entry in LISTS[name].split(","):
        value, _, weight = " ".join(entry.split()).partition("*")
        yield int(weight or 1), value, FORMS.get(name)


def choice(options: list[tuple[int, tuple[str, ...], tuple, dict]]) -> Choice:
    """The choice among (weight, prefix, program after it, what it remembers)."""
    prefixes = [prefix for _, prefix, _, _ in options]
    for prefix in prefixes:
        if not prefix or sum(other[: len(prefix)] == prefix for other in prefixes) > 1:
            raise ValueError(f"an alternative is empty or begins another: {' '.join(prefix)!r}")
    alternatives = []
    for _, prefix, program, remembers in options:
        record = np.array([_next_word(options, prefix, depth) for depth in range(len(prefix))], np.float32).T
        nodes = [
            Recall(word, record[:, i : i + 1])
            if word.startswith("{")
            else Words((word,), record[:, i : i + 1])
            for i, word in enumerate(prefix)
        ]
        alternatives.append(Alternative(prefix, (*_joined(nodes), *program), remembers))
    total = sum(weight for weight, *_ in options)
    thresholds = tuple(mass / total for mass in accumulate(weight for weight, *_ in options))[:-1]
    return Choice(tuple(alternatives), thresholds)


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
    words: list[Words] = []
    for node in [*nodes, None]:
        if isinstance(node, Words):
            words.append(node)
            continue
        if words:
            told = tuple(word for part in words for word in part.words)
            yield Words(told, np.concatenate([part.record for part in words], axis=1))
            words = []
        if node is not None:
            yield node
