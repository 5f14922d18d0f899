"""The subject's greedy decoding, compared with the model's own choices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.model.untrained import table_reads, watched_tables
from mlxstories.ladder.bench.samples import sample, whole_sample
from mlxstories.ladder.bench.subject_fault import SubjectFault
from mlxstories.ladder.bench.training.trained import memorised_model
from mlxstories.ladder.modes import in_mode
from mlxstories.ladder.patches import rerouted, with_tokens

_NEW, _LONG = 16, 160  # tokens continued, and once as far as the row reaches
_LEFT = 4  # of a row, that a long prompt leaves
_LONGEST = 512  # tokens of a prompt


@dataclass(frozen=True)
class Continuation:
    """A prompt continued.

    Attributes:
        model: what kind of model did it.
        behind: how far each new token's logit lies behind the largest after the true prefix, in the logits' spread.
    """

    model: str
    prompt: list[int]
    tokens: list[int]
    behind: list[float]

    @property
    def last_run(self) -> int:
        """How many times the last token is repeated at the end."""
        return sum(1 for _ in takewhile(lambda token: token == self.tokens[-1], reversed(self.tokens)))


@dataclass(frozen=True)
class Edge:
    """A prompt that fills the row but for a few tokens, continued past its end.

    Attributes:
        prompt: tokens of the prompt.
        asked, told: new tokens asked for, and returned.
        outside: (id or position, rows of the table) of look-ups outside of their table.
        whole: whether texts longer than the table were looked up at once, not single tokens behind a cache.
    """

    prompt: int
    asked: int
    told: int
    outside: list[tuple[int, int]]
    whole: bool


@dataclass(frozen=True)
class Decoding:
    """Continuations by models whose choices differ from token to token.

    Attributes:
        repeats: whether the same prompt continues the same way again.
        silent: whether no prompt is continued at all, though the models would go on with different tokens.
    """

    continuations: list[Continuation]
    repeats: bool
    edge: Edge | None = None
    silent: bool = False


@measurement
def decoding(bench: Bench) -> Decoding:
    """Continue a few prompts with models whose choices vary: noisy, untrained, and one that memorised."""
    noisy = bench.noisy(13, amount=1.5)
    models = [("with noisy weights", noisy), ("untrained", bench.noisy(14))]
    if (memorised := memorised_model(bench)) is not None:
        models.append(("after memorising", memorised))
    found = [one for name, model in models for one in continuations(bench, name, model, long=model is noisy)]
    silent = not found and len({choice(bench, model, p) for _, model in models for p in _prompts(bench)}) > 1
    return Decoding(found, _repeats(bench, noisy), _over_the_edge(bench, noisy), silent)


def continuations(bench: Bench, name: str, model: nn.Module, *, long: bool = False) -> list[Continuation]:
    """A few prompts continued by a model of this name, the first of them far if it is to be ``long``."""
    return [
        Continuation(name, prompt, tokens, behind(bench, model, prompt, tokens))
        for index, prompt in enumerate(_prompts(bench))
        if (tokens := _continue(bench, model, prompt, _LONG if long and not index else _NEW))
    ]


def choice(bench: Bench, model: nn.Module, prompt: list[int]) -> int:
    """The model's own next token."""
    model.eval()
    return int(mx.argmax(bench.logits(model, np.array([prompt]))[0, -1]))


def _over_the_edge(bench: Bench, model: nn.Module) -> Edge | None:
    """Continue a prompt past the end of the context; None where decoding refuses, or no row fills it."""
    row = np.maximum(whole_sample(bench).inputs[0], 0).tolist()
    prompt, asked = row[: len(row) - _LEFT], 2 * _LEFT
    if not prompt or len(row) > _LONGEST:
        return None
    try:
        with watched_tables() as outside, _longest_call(model) as lengths:
            told = generated(bench, model, prompt, asked, bench.seed)
    except SubjectFault:  # a text that is too long may be refused
        return None
    whole = any(max(lengths, default=0) > size for _, size in outside)
    return Edge(len(prompt), asked, len(told), outside, whole)


@contextmanager
def _longest_call(model: nn.Module) -> Iterator[list[int]]:
    """Collects how many tokens the model is called with."""
    lengths: list[int] = []

    def counted(own, tokens, *args, **kwargs):
        lengths.append(tokens.shape[-1])
        return own(tokens, *args, **kwargs)

    with rerouted(model, with_tokens(counted)):
        yield lengths


def _prompts(bench: Bench) -> list[list[int]]:
    rows = sample(bench)
    sizes = sorted({min(rows.shape[1], n) for n in (5, 9)})
    real = [row[mask > 0] for row, mask in zip(rows.inputs[:2], rows.mask[:2], strict=True)]
    return [[int(i) for i in row[:size]] for row in real for size in sizes if len(row) >= 2][:3]


def generated(bench: Bench, model: nn.Module, prompt: Sequence[int], count: int, seed: int) -> list[int]:
    """New tokens alone, whether or not the subject's decoding repeats the prompt."""
    with bench.calling("generate"):
        bench.seed_all(seed)
        model.train()
        tokens = _ids(bench, bench.subject.generate(model, list(prompt), count))
    return tokens[len(prompt) :] if _echoed(bench, model, list(prompt), tokens, count) else tokens


def _ids(bench: Bench, told: Any) -> list[int]:
    """What ``generate`` returned as a list: of a list, a row [n] or [1, n], or a generator."""
    if hasattr(told, "__iter__") and not isinstance(told, str):
        ids = list(told)  # outside: a generator may raise itself
        with suppress(TypeError, ValueError):
            return [int(token) for token in (ids[0] if len(ids) == 1 and np.ndim(ids[0]) == 1 else ids)]
    raise bench.fault(
        f"generate returned {'text' if isinstance(told, str) else type(told).__name__}, not a list of ids",
        "return the ids of the new tokens",
        "generate",
        part="generation",
    )


def _echoed(bench: Bench, model: nn.Module, prompt: list[int], tokens: list[int], count: int) -> bool:
    """Whether the prompt stands before the new tokens, which may be fewer than were asked for."""
    if not tokens or tokens[: len(prompt)] != prompt:
        return False
    return len(tokens) > count or choice(bench, model, prompt) != tokens[0]


def _continue(bench: Bench, model: nn.Module, prompt: list[int], new: int = _NEW) -> list[int]:
    count = max(2, min(new, sample(bench).shape[1] - len(prompt)))
    tokens = generated(bench, model, prompt, count, bench.seed)
    size = max(bench.subject.vocab_size, table_reads(bench).width)  # a vocabulary padded for speed
    if any(not 0 <= token < size for token in tokens):
        raise bench.fault(
            f"generate returned ids outside 0 to {size - 1}: {tokens[:8]}",
            "return token ids",
            "generate",
            part="generation",
        )
    # What an id of the padding brings about is nobody's concern.
    known = next((i for i, token in enumerate(tokens) if token >= bench.subject.vocab_size), count)
    return tokens[: min(count, known + 1)]


def behind(bench: Bench, model: nn.Module, prompt: list[int], tokens: list[int]) -> list[float]:
    """How far each token's logit lies below the largest one after its true prefix, in the logits' spread."""
    with in_mode(model, training=False):
        logits = np.array(bench.logits(model, np.array([prompt + tokens[:-1]])))[0, len(prompt) - 1 :]
    with np.errstate(invalid="ignore"):  # logits that are not finite are another check's finding
        spread = max(float(logits.std()), 1e-30)
        return [float(row.max() - row[token]) / spread for row, token in zip(logits, tokens, strict=True)]


def _repeats(bench: Bench, model: nn.Module) -> bool:
    for prompt in _prompts(bench)[:1]:
        first = _continue(bench, model, prompt)
        again = generated(bench, model, prompt, max(2, len(first)), bench.seed + 77)
        return again[: len(first)] == first
    return True
