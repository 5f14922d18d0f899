"""What the subject's own step returns as its loss, fitted to the cross-entropy of the model before it."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.nn as nn
import numpy as np

from mlxstories.ladder.bench.arrays import put
from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.loss.objective import Objective, fit
from mlxstories.ladder.bench.samples import probe_batch
from mlxstories.trees import by_path

_CALLS = 8


@dataclass(frozen=True)
class StepLoss:
    """The formula of the returned loss, or why there is none.

    Attributes:
        objective: as recovered; None where nothing fits.
        random: whether the model's own randomness hides it.
    """

    objective: Objective | None
    random: bool = False


@measurement
def step_loss(bench: Bench) -> StepLoss:
    """Call the step on random targets, always with the same weights, and fit what it returns."""
    rng = np.random.default_rng((bench.seed, 31))
    model, optimizer = bench.noisy(5), bench.optimizer()
    kept = by_path(model.parameters())
    model.train()
    if is_random(bench, model):
        return StepLoss(None, random=True)
    cases, values = [], []
    for call in range(_CALLS):
        batch = _with_random_targets(bench, probe_batch(bench, call), rng)
        logits = np.array(bench.logits(model, np.maximum(batch.inputs, 0)))
        values.append(bench.step(model, optimizer, batch))
        put(model, kept)
        cases.append((logits, batch.inputs, batch.targets, batch.mask))
    return StepLoss(fit(cases, np.array(values)))


def is_random(bench: Bench, model: nn.Module) -> bool:
    """Whether the model, in its present mode, answers differently after another seed."""
    inputs = np.maximum(probe_batch(bench, 0).inputs, 0)
    outs = []
    for seed in (1, 2):
        bench.seed_all(seed)
        outs.append(np.array(bench.logits(model, inputs)))
    return not np.array_equal(*outs)


def _with_random_targets(bench: Bench, batch: HostBatch, rng: np.random.Generator) -> HostBatch:
    targets = rng.integers(0, bench.subject.vocab_size, batch.shape)
    mask = np.ones(batch.shape, np.float32)
    if batch.masked:
        length = batch.shape[1]
        kept = rng.integers(length // 2, length + 1, batch.shape[0])[:, None]
        mask = (np.arange(length) < kept).astype(np.float32)
    return batch.with_(targets=targets, mask=mask)
