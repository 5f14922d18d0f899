"""The first updates exactly as the subject makes them: no ramp, nothing scaled."""

from __future__ import annotations

from dataclasses import dataclass

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.training.short import rows
from mlxstories.ladder.bench.training.trial import score

UPDATES = 20
_SEEDS = 2


@dataclass(frozen=True)
class Beginning:
    """A training's beginning under one seed.

    Attributes:
        start, end: held-out loss of the untrained model and after the updates, in nats per token.
    """

    start: float
    end: float


@measurement
def beginnings(bench: Bench) -> tuple[Beginning, ...]:
    """Begin the subject's training under two seeds, each with weights and batches of its own."""
    return tuple(_begin(bench, index) for index in range(_SEEDS))


def _begin(bench: Bench, index: int) -> Beginning:
    material, seed = rows(bench), bench.seed + 100 * index
    model, optimizer = bench.model(seed), bench.optimizer()
    start = score(bench, model, material.held)[0]
    model.train()
    bench.seed_all(seed + 1)
    for update in range(UPDATES):
        bench.step(model, optimizer, material.batches[(index * UPDATES + update) % len(material.batches)])
    return Beginning(start, score(bench, model, material.held)[0])
