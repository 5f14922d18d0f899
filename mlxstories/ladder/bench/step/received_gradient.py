"""The gradients that reach the optimiser in one step, read on their way in or from its state."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.optimizers import Optimizer
from mlx.utils import tree_flatten

from mlxstories.ladder.bench.arrays import Arrays
from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.bench import Bench
from mlxstories.ladder.bench.samples import probe_batch
from mlxstories.ladder.bench.step.optimizers import intercepted, parts, read_rate
from mlxstories.trees import by_path


def loss_gradient(bench: Bench, model: nn.Module, batch: HostBatch) -> tuple[float, Arrays]:
    """The subject's loss and its gradient by parameter, evaluated."""
    with bench.calling("loss"):
        value, tree = nn.value_and_grad(model, lambda m: bench.loss(m, batch))(model)
        flat = {n: g for n, g in by_path(tree).items() if isinstance(g, mx.array)}
        mx.eval(value, flat)
    return float(value), flat


def watched_step(
    bench: Bench, model: nn.Module, optimizer: Optimizer, batch: HostBatch
) -> tuple[float, Arrays]:
    """One step of a fresh optimiser: the loss it returned, and the gradients that reached the optimiser by
    parameter; none where no update was made or they cannot be read."""
    before = by_path(model.parameters())
    received: Arrays = {}
    with intercepted(optimizer, lambda gradients: received.update(tree_flatten(gradients)) or gradients):
        loss = bench.step(model, optimizer, batch)
    try:
        mx.eval(received)
    except (RuntimeError, ValueError):  # seen inside mx.compile
        received = _from_state(optimizer, before, by_path(model.parameters()))
    return loss, received


def own_and_received(bench: Bench, batch: HostBatch) -> tuple[Arrays, Arrays]:
    """The gradient of the subject's loss, and what reached the optimiser in a step on the same batch."""
    model, optimizer = bench.model(), bench.optimizer()
    model.train()
    own = loss_gradient(bench, model, batch)[1]
    return own, watched_step(bench, model, optimizer, batch)[1]


def spoiled_by(bench: Bench, sound: Callable[[Arrays], bool]) -> tuple[str, str]:
    """The field of the subject that spoils the first step, and its part: the optimiser where a sound gradient reaches
    it, the loss where its own gradient is not sound, else what lies between them.

    Args:
        sound: judges gradients by parameter.
    """
    own, received = own_and_received(bench, probe_batch(bench, 0))
    if received and sound(received):
        return "optimizer", "step"
    if bench.subject.loss is not None and not sound(own):
        return "loss", "loss"
    return ("train_step", "step") if bench.subject.train_step else ("loss", "loss")


def _from_state(
    optimizer: Optimizer, before: dict[str, mx.array], after: dict[str, mx.array]
) -> dict[str, mx.array]:
    """The gradient that a fresh optimiser received in its one step so far, from its state."""
    received: dict[str, mx.array] = {}
    for part in parts(optimizer):
        flat = by_path(part.state)
        moment = _moment(part, {name.rpartition(".")[2] for name in flat})
        if moment is None:
            rate = (read_rate(part) or 0.0) if "sgd" in type(part).__name__.lower() else 0.0
            # Its own weights only: those of other parts move by their own rates.
            paths = {name.rpartition(".")[0] for name in flat} if part is not optimizer else before.keys()
            if not rate:
                return {}
            received |= _by_rate({n: before[n] for n in before if n in paths}, after, rate)
            continue
        key, factor = moment
        for name, value in flat.items():
            path, _, leaf = name.rpartition(".")
            if leaf == key:
                received[path] = value.astype(mx.float32) / factor
    return received


def _moment(part: Optimizer, leaves: set[str]) -> tuple[str, float] | None:
    """The leaf of the state that holds a share of the first gradient, and that share."""
    kind, betas = type(part).__name__.lower(), getattr(part, "betas", None)
    if betas is not None and "m" in leaves:
        return "m", 1 - float(betas[1] if "lion" in kind else betas[0])
    momentum = getattr(part, "momentum", 0)
    if isinstance(momentum, (int, float)) and momentum and len(leaves & {"m", "v"}) == 1:
        return "m" if "m" in leaves else "v", 1 - (
            momentum if "muon" in kind else getattr(part, "dampening", 0.0)
        )
    return None


def _by_rate(before: dict[str, mx.array], after: dict[str, mx.array], rate: float) -> dict[str, mx.array]:
    return {n: (before[n].astype(mx.float32) - after[n].astype(mx.float32)) / rate for n in before}


def variation(values: list[float]) -> float:
    """The standard deviation of values above 0, as a share of their mean."""
    return float(np.std(values) / max(np.mean(values), np.finfo(float).tiny))
