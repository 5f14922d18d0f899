"""Decoding of several prompts at once, where the subject's ``generate`` takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.nn as nn

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.generation.decoding import behind
from mlxstories.ladder.bench.samples import sample

_EQUAL, _SHORTER = 7, 3  # tokens of a prompt
_NEW = 8


@dataclass(frozen=True)
class Rows:
    """How far each new token's logit lies behind the largest after the row's true prefix, in the logits' spread.

    Attributes:
        equal: of prompts of one length, a list for each row.
        unequal: of the same, one of them cut.
    """

    equal: list[list[float]]
    unequal: list[list[float]]


@measurement
def rows_decoded(bench: Bench) -> Rows | None:
    """Continue two prompts in one call; None where ``generate`` takes only one, or rows are short."""
    rows = sample(bench)
    real = [row[mask > 0].tolist() for row, mask in zip(rows.inputs, rows.mask, strict=True)]
    prompts = [row[:_EQUAL] for row in real if len(row) >= _EQUAL + 2][:2]
    if len(prompts) < 2 or rows.shape[1] < _EQUAL + _NEW:
        return None
    model = bench.noisy(13, amount=1.5)
    equal = _together(bench, model, prompts)
    unequal = _together(bench, model, [prompts[0], prompts[1][:_SHORTER]])
    return None if equal is None or unequal is None else Rows(equal, unequal)


def _together(bench: Bench, model: nn.Module, prompts: list[list[int]]) -> list[list[float]] | None:
    bench.seed_all(bench.seed)
    model.train()
    try:
        told = bench.subject.generate(model, [list(prompt) for prompt in prompts], _NEW)
    except Exception:  # it takes one prompt
        return None
    rows = [_new_tokens(row, prompt) for row, prompt in zip(_listed(told), prompts, strict=False)]
    size = bench.subject.vocab_size
    usable = len(rows) == len(prompts) and all(row and all(0 <= t < size for t in row) for row in rows)
    if not usable:
        return None
    return [behind(bench, model, prompt, row) for prompt, row in zip(prompts, rows, strict=True)]


def _listed(told: Any) -> list[Any]:
    """What was returned as lists of whole numbers; empty where it is something else."""
    try:
        rows = [[int(token) for token in row] for row in told]
    except (TypeError, ValueError):
        return []
    return rows


def _new_tokens(row: list[int], prompt: list[int]) -> list[int]:
    return (row[len(prompt) :] if row[: len(prompt)] == prompt else row)[:_NEW]
