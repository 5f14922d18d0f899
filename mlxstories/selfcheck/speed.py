"""How many tokens a second this machine trains on and tells, by size."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import mlx.core as mx

from mlxstories.batch import Batch
from mlxstories.generation.decoding import generate
from mlxstories.generation.sampling import SamplingConfig
from mlxstories.model import size_config
from mlxstories.optim import build_optimizer
from mlxstories.training.experiment import new_model
from mlxstories.training.losses import objective
from mlxstories.training.phases import PHASE_1
from mlxstories.training.step import TrainStep

SIZES = ("debug", "small", "base", "large")
_LATEST = 15  # seconds after which no larger size is begun


@dataclass(frozen=True)
class Speed:
    """Tokens a second of a named size, float32, 8 rows of 256, a vocabulary of 4096.

    Attributes:
        size: the model's.
        training: of updates of phase 1.
        sampling: of eight stories at once.
    """

    size: str
    training: float
    sampling: float


def speeds() -> Iterator[Speed]:
    """The table of speed on the default device; sizes that would take too long are left out."""
    began = time.perf_counter()
    for size in SIZES:
        if time.perf_counter() - began < _LATEST:
            yield _speed(size)


def _speed(size: str) -> Speed:
    config = size_config(size, 4096, context=256)
    tokens = mx.random.randint(3, 4096, (8, 256), key=mx.random.key(0)).astype(mx.int32)
    batch = Batch(tokens, tokens, mx.ones(tokens.shape))
    step = TrainStep(
        new_model(config, 0), build_optimizer(PHASE_1.optimizer), objective(config), clip_norm=1.0
    )

    def update(seed: int) -> int:
        mx.eval(step([batch], seed))
        return tokens.size

    def tell(seed: int) -> int:
        sampling = SamplingConfig(temperature=1.0)
        told = generate(step.model, [[]] * 8, max_tokens=32, sampling=sampling, seed=seed)
        return sum(len(story.tokens) for story in told)

    return Speed(size, _rate(update), _rate(tell))


def _rate(work: Callable[[int], int], least: float = 1.0) -> float:
    """Items a second of ``work``, which says how many it did, after a first time that compiles."""
    work(0)
    items, began, turn = 0, time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < least:
        turn += 1
        items += work(turn)
    return items / passed
