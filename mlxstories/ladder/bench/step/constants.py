"""The constants of an optimiser, as far as they can be read from outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlx.optimizers import Optimizer

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.step.adam import adams
from mlxstories.ladder.bench.step.gradient_arrival import gradient_arrival
from mlxstories.ladder.bench.step.optimizers import parts
from mlxstories.trees import by_path


@dataclass(frozen=True)
class Constants:
    """What one part of an optimiser goes by; None where it has no such constant.

    Attributes:
        name: of its class.
        beta1, beta2, eps: of an Adam.
        momentum: of SGD and Muon.
        weight_decay: coefficient.
    """

    name: str
    beta1: float | None
    beta2: float | None
    eps: float | None
    momentum: float | None
    weight_decay: float | None


@measurement
def constants(bench: Bench) -> tuple[Constants, ...]:
    """The constants of every part of the optimiser."""
    optimizer = bench.optimizer()
    of_adam = adams(optimizer)
    return tuple(_of(part, part in of_adam) for part in parts(optimizer))


def _of(part: Optimizer, adam: bool) -> Constants:
    betas = getattr(part, "betas", None) if adam else None
    beta1, beta2 = (_number(beta) for beta in betas) if betas is not None else (None, None)
    eps = _number(getattr(part, "eps", None)) if adam else None
    momentum, decay = (_number(getattr(part, name, None)) for name in ("momentum", "weight_decay"))
    return Constants(type(part).__name__, beta1, beta2, eps, momentum, decay)


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


@measurement
def gradient_entry(bench: Bench) -> float | None:
    """Root mean square of an entry of the loss's gradient, before any clipping; None where it cannot be compared."""
    found = gradient_arrival(bench)
    if isinstance(found, str):
        return None
    entries = sum(array.size for array in by_path(bench.model().trainable_parameters()).values())
    return max(step.norm / step.ratio if step.ratio else 0.0 for step in found.steps) / max(1, entries) ** 0.5
