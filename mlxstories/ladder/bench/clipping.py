"""The gradients that reach the optimiser, and whether a clip has cut them."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.optimizers import Optimizer
from mlx.utils import tree_flatten, tree_map

from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.material import probe_batch
from mlxstories.ladder.bench.optimizers import intercepted, parts, read_rate
from mlxstories.ladder.bench.rates import attempt, rate_sweep


@dataclass(frozen=True)
class Clip:
    """Gradients reach the optimiser with a constant norm, or a constant largest entry.

    Attributes:
        kind: ``norm`` or ``value``.
        limit: that constant.
        share: what is left of the gradient's norm, median over batches.
    """

    kind: str
    limit: float
    share: float


@measurement
def clipping(bench: Bench) -> Clip | None:
    """Find a clip that binds on every one of several batches, from the gradients that reach the optimiser."""
    own, seen, largest = [], [], []
    for call in range(3):
        gradient, received = _gradients(bench, probe_batch(bench, call))
        if not received:
            return None
        own.append(_norm(gradient))
        seen.append(_norm(received))
        largest.append(max(float(mx.abs(g).max()) for g in received.values()))
    if _spread(own) <= 1e-3 or min(seen) <= 0 or not np.isfinite(seen).all():
        return None
    share = float(np.median(np.array(seen) / np.maximum(own, 1e-30)))
    if _spread(seen) < 2e-4:
        return Clip("norm", float(np.mean(seen)), share)
    if _spread(largest) < 1e-4 and share < 1:
        return Clip("value", float(np.mean(largest)), share)
    return None


def _spread(values: list[float]) -> float:
    return float(np.std(values) / max(float(np.mean(values)), 1e-30))


def _gradients(bench: Bench, batch: HostBatch) -> tuple[dict[str, mx.array], dict[str, mx.array]]:
    """The gradient of the subject's loss, and what reached the optimiser in a step on the same batch."""
    model, optimizer = bench.model(), bench.optimizer()
    model.train()
    before = dict(tree_flatten(model.parameters()))
    own = _user_gradient(bench, model, batch)
    received: dict[str, mx.array] = {}
    with intercepted(optimizer, lambda gradients: received.update(tree_flatten(gradients)) or gradients):
        bench.step(model, optimizer, batch)
    try:
        mx.eval(received)
    except (RuntimeError, ValueError):  # seen inside mx.compile
        received = _received(optimizer, before, dict(tree_flatten(model.parameters())))
    return own, received


def _user_gradient(bench: Bench, model: nn.Module, batch: HostBatch) -> dict[str, mx.array]:
    with bench.calling("loss"):
        tree = nn.value_and_grad(model, lambda m: bench.loss(m, batch))(model)[1]
        flat = {n: g for n, g in tree_flatten(tree) if isinstance(g, mx.array)}
        mx.eval(flat)
    return flat


def _norm(arrays: dict[str, mx.array]) -> float:
    return float(mx.sqrt(sum(a.astype(mx.float32).square().sum() for a in arrays.values())))


def _received(
    optimizer: Optimizer, before: dict[str, mx.array], after: dict[str, mx.array]
) -> dict[str, mx.array]:
    """The gradient that a fresh optimiser received in its one step so far, from its state."""
    received: dict[str, mx.array] = {}
    for part in parts(optimizer):
        flat = dict(tree_flatten(part.state))
        moment = _moment(part, {name.rpartition(".")[2] for name in flat})
        if moment is None:
            rate = (read_rate(part) or 0.0) if "sgd" in type(part).__name__.lower() else 0.0
            return _by_rate(before, after, rate) if rate else {}
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
        return "m" if "m" in leaves else "v", 1 - momentum if "muon" in kind else 1.0
    return None


def _by_rate(before: dict[str, mx.array], after: dict[str, mx.array], rate: float) -> dict[str, mx.array]:
    return {n: (before[n].astype(mx.float32) - after[n].astype(mx.float32)) / rate for n in before}


@measurement
def unclipped_run(bench: Bench) -> tuple[float, float]:
    """Loss and accuracy on the minimal batch with gradients let through at a norm of 1."""
    return attempt(bench, rate_sweep(bench).steps, receive=_of_unit_norm)


def _of_unit_norm(gradients):
    squares = sum(g.astype(mx.float32).square().sum() for _, g in tree_flatten(gradients))
    scale = mx.rsqrt(mx.maximum(squares, 1e-30))
    return tree_map(lambda g: (g * scale).astype(g.dtype), gradients)
