"""Whether the randomness of a training step is new at every call."""

from __future__ import annotations

from mlxstories.ladder.bench.arrays import put
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.samples import probe_batch
from mlxstories.ladder.bench.step.step_loss import is_random
from mlxstories.trees import by_path

_SEEDS = (5, 6, 7)


@measurement
def step_losses_by_seed(bench: Bench) -> list[float] | None:
    """Losses of the step on one batch and with the same weights, after different seeds; None where the model in
    training mode is not random."""
    model, optimizer = bench.noisy(5), bench.optimizer()
    model.train()
    if not is_random(bench, model):
        return None
    kept, losses = by_path(model.parameters()), []
    for seed in _SEEDS:
        bench.seed_all(seed)
        model.train()
        losses.append(bench.step(model, optimizer, probe_batch(bench, 0)))
        put(model, kept)
    return losses
