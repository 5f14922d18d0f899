"""The subject's greedy decoding beside the model's own choices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import mlx.nn as nn
import numpy as np

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.material import sample
from mlxstories.ladder.bench.trained import memorised_model
from mlxstories.ladder.bench.untrained import table_reads

_NEW = 16  # tokens continued


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
        """How often the last token stands at the end in a row."""
        return sum(1 for _ in takewhile(lambda token: token == self.tokens[-1], reversed(self.tokens)))


@dataclass(frozen=True)
class Decoding:
    """Continuations by models whose choices vary, and whether the same prompt continues the same way again."""

    continuations: list[Continuation]
    repeats: bool


@measurement
def decoding(bench: Bench) -> Decoding:
    """Continue a few prompts with models whose choices vary: noisy, untrained, and one that memorised."""
    noisy = bench.noisy(13, amount=1.5)
    models = [("with noisy weights", noisy), ("untrained", bench.noisy(14))]
    if (memorised := memorised_model(bench)) is not None:
        models.append(("after memorising", memorised))
    found = [
        Continuation(name, prompt, tokens, _behind(bench, model, prompt, tokens))
        for name, model in models
        for prompt in _prompts(bench)
        if (tokens := _continue(bench, model, prompt))
    ]
    return Decoding(found, _repeats(bench, noisy))


def _prompts(bench: Bench) -> list[list[int]]:
    rows = sample(bench)
    sizes = sorted({min(rows.shape[1], n) for n in (5, 9)})
    real = [row[mask > 0] for row, mask in zip(rows.inputs[:2], rows.mask[:2], strict=True)]
    return [[int(i) for i in row[:size]] for row in real for size in sizes if len(row) >= 2][:3]


def _generate(bench: Bench, model: nn.Module, prompt: Sequence[int], count: int, seed: int) -> list[int]:
    """New tokens alone, whether or not the subject's decoding repeats the prompt."""
    with bench.calling("generate"):
        bench.seed_all(seed)
        model.train()
        tokens = [int(token) for token in bench.subject.generate(model, list(prompt), count)]
    echoed = len(tokens) > count and tokens[: len(prompt)] == list(prompt)
    return tokens[len(prompt) :] if echoed else tokens


def _continue(bench: Bench, model: nn.Module, prompt: list[int]) -> list[int]:
    count = max(2, min(_NEW, sample(bench).shape[1] - len(prompt)))
    tokens = _generate(bench, model, prompt, count, bench.seed)
    size = max(bench.subject.vocab_size, table_reads(bench).width)  # a vocabulary padded for speed
    if any(not 0 <= token < size for token in tokens):
        raise bench.fault(
            f"generate returned ids outside 0 to {size - 1}: {tokens[:8]}", "return token ids", "generate"
        )
    # What an id of the padding brings about is nobody's concern.
    known = next((i for i, token in enumerate(tokens) if token >= bench.subject.vocab_size), count)
    return tokens[: min(count, known + 1)]


def _behind(bench: Bench, model: nn.Module, prompt: list[int], tokens: list[int]) -> list[float]:
    training = model.training
    model.eval()
    logits = np.array(bench.logits(model, np.array([prompt + tokens[:-1]])))[0, len(prompt) - 1 :]
    model.train(training)
    spread = max(float(logits.std()), 1e-30)
    return [float(row.max() - row[token]) / spread for row, token in zip(logits, tokens, strict=True)]


def _repeats(bench: Bench, model: nn.Module) -> bool:
    for prompt in _prompts(bench)[:1]:
        first = _continue(bench, model, prompt)
        again = _generate(bench, model, prompt, max(2, len(first)), bench.seed + 77)
        return again[: len(first)] == first
    return True
