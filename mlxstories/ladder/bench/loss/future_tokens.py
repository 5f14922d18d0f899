"""Whether what training minimises depends on tokens after those that count."""

from __future__ import annotations

from collections.abc import Callable

import mlx.nn as nn
import numpy as np

from mlxstories.ladder.bench.arrays import put
from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.model.dependence import different
from mlxstories.ladder.bench.samples import minimal_batch, sample
from mlxstories.trees import by_path

_OTHERS = 2  # choices of the prefix's targets
_LEAST = 1e-6  # change of a loss, relative where it is above 1, that is more than rounding

Value = Callable[[nn.Module, HostBatch], float]


@measurement
def loss_sees_future(bench: Bench) -> float | None:
    """How much the subject's loss over a prefix moves when inputs after the prefix change, relative to how much
    it moves when the prefix changes; None where the loss does not heed the mask.

    What it moves whatever the prefix's targets is a further term, the balance of experts say, and not counted: what
    the model sees of the future makes some targets likelier and others less."""

    def value(model: nn.Module, batch: HostBatch) -> float:
        with bench.calling("loss"):
            return float(bench.loss(model, batch))

    return _seen(bench, sample(bench).rows(slice(0, min(2, sample(bench).shape[0]))), value)


@measurement
def step_sees_future(bench: Bench) -> float | None:
    """The same for the loss that the subject's step returns, always with the same weights."""

    def value(model: nn.Module, batch: HostBatch) -> float:
        kept = by_path(model.parameters())
        loss = bench.step(model, bench.optimizer(), batch)
        put(model, kept)
        return loss

    return _seen(bench, minimal_batch(bench), value)


def _seen(bench: Bench, batch: HostBatch, value: Value) -> float | None:
    if not batch.masked or batch.shape[1] < 4:
        return None
    model = bench.noisy(0)
    model.eval()
    rng = np.random.default_rng((bench.seed, 11))
    cut = batch.shape[1] // 2
    mask = np.zeros_like(batch.mask)
    mask[:, : cut - 1] = batch.mask[:, : cut - 1] > 0  # what never counts may see what it likes
    if not mask.any():
        return None
    suffix, prefix, targets = batch.inputs.copy(), batch.inputs.copy(), batch.targets.copy()
    suffix[:, cut:] = different(bench, suffix[:, cut:], rng)
    prefix[:, :cut] = different(bench, prefix[:, :cut], rng)
    targets[:, cut:] = different(bench, targets[:, cut:], rng)

    def of(**changes) -> float:
        bench.seed_all(bench.seed)
        return value(model, batch.with_(mask=mask, **changes))

    plain = of()
    smallest = _LEAST * max(1.0, abs(plain))
    if abs(of(targets=targets) - plain) > smallest or of() != plain:
        return None
    scale = abs(of(inputs=prefix) - plain)
    if scale <= smallest:
        return None
    by_suffix = of(inputs=suffix) - plain
    moved = 0.0
    for _ in range(_OTHERS if by_suffix else 0):
        targets = batch.targets.copy()
        targets[:, :cut] = different(bench, targets[:, :cut], rng)
        moved = max(moved, abs(of(inputs=suffix, targets=targets) - of(targets=targets) - by_suffix))
    return moved / scale
