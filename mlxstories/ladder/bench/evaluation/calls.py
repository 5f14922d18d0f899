"""How ``evaluate`` is called: with which batches, what it tells, and what the model says to it meanwhile."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.ladder.bench.arrays import first_of
from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.epochs import train_epoch, val_epoch
from mlxstories.ladder.patches import rerouted, with_tokens

_BATCHES = 3
_CELLS = 400_000  # logits of a batch
_CLOCK = re.compile(r"time|second|elapsed|duration|throughput|speed|per_sec|/s$|memory", re.I)


@measurement
def evaluation_batches(bench: Bench) -> list[HostBatch]:
    """Batches of random tokens in the form of validation's, unequally long where padding is used at all: without
    it, to ignore the mask is no fault."""
    epoch = val_epoch(bench) or train_epoch(bench)
    rng = np.random.default_rng((bench.seed, 53))
    vocab, made = bench.subject.vocab_size, []
    for index in range(_BATCHES):
        source = epoch.batches[index % len(epoch.batches)]
        width = min(source.shape[1], max(8, _CELLS // (4 * vocab)))
        batch = source.rows(slice(0, min(4, source.shape[0]))).cut(width)
        mask = np.ones(batch.shape, np.float32)
        if epoch.padded:
            kept = rng.integers(max(min(2, width), width // (2 + index)), width + 1, batch.shape[0])
            mask = (np.arange(width) < kept[:, None]).astype(np.float32)
        inputs, targets = rng.integers(0, vocab, batch.shape), rng.integers(0, vocab, batch.shape)
        made.append(batch.with_(inputs=inputs, targets=targets, mask=mask))
    return made


def evaluate(bench: Bench, model: nn.Module, batches: list[HostBatch], seed: int) -> dict[str, float]:
    """What ``evaluate`` tells of a model that is in training mode, as a loop hands it over.

    Args:
        seed: of all random states.
    """
    model.train()
    bench.seed_all(seed)
    with bench.calling("evaluate"):
        answer = bench.subject.evaluate(model, [batch.user() for batch in batches])
        if not hasattr(answer, "keys"):
            raise bench.fault(
                f"evaluate returned {type(answer).__name__}",
                'return {"loss": ..., "accuracy": ...}',
                "evaluate",
                part="evaluation",
            )
        figures = figures_in(dict(answer))
        for name in ("loss", "accuracy"):
            if name in answer and name not in figures:
                raise bench.fault(
                    f"evaluate returned {type(answer[name]).__name__} as {name}, not a number",
                    'return {"loss": ..., "accuracy": ...}',
                    "evaluate",
                    part="evaluation",
                )
        return figures


def figures_in(answer: dict[Any, Any]) -> dict[str, float]:
    """The numbers in what ``evaluate`` returns, without those of a clock, which are others each time; samples and
    tables may stand beside them."""
    figures = {}
    for name, value in answer.items():
        if not _CLOCK.search(str(name)):
            with suppress(TypeError, ValueError):
                figures[str(name)] = float(value)
    return figures


@contextmanager
def heard(model: nn.Module, look: Callable[[], None] = lambda: None) -> Iterator[dict[bytes, np.ndarray]]:
    """Collects the logits that the model returns by the tokens that it is called with, and has a look around at each
    call; nothing inside of mx.compile."""
    said: dict[bytes, np.ndarray] = {}

    def listening(own, tokens, *args, **kwargs):
        out = own(tokens, *args, **kwargs)
        logits = first_of(out)
        with suppress(Exception):
            if logits.ndim == 3:  # not in one row, as a model may that takes its loss itself
                said[key_of(tokens)] = np.array(logits.astype(mx.float32))
            look()
        return out

    with rerouted(model, with_tokens(listening)):
        yield said


def key_of(tokens) -> bytes:
    """Tokens as `heard` files what is said of them."""
    return np.array(tokens).astype(np.int64).tobytes()


def logits_behind(
    bench: Bench, model: nn.Module, batches: list[HostBatch], said: dict[bytes, np.ndarray]
) -> list[np.ndarray]:
    """What the model said to ``evaluate``, which may have put other weights in for it; else what it says to us."""
    model.eval()
    return [
        np.array(bench.logits(model, batch.inputs))
        if (told := said.get(key_of(batch.inputs))) is None
        else told
        for batch in batches
    ]
