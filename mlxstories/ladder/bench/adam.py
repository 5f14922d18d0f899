"""Adam and its kin: which part of an optimiser is one, and what its missing bias correction does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from mlx.optimizers import Adam, Optimizer

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.optimizers import parts


def adams(optimizer: Optimizer) -> list[Optimizer]:
    """The parts of an optimiser that are Adam or of its kind."""
    return [o for o in parts(optimizer) if isinstance(o, Adam) or "adam" in type(o).__name__.lower()]


def uncorrected(optimizer: Optimizer) -> Optimizer | None:
    """The first Adam that runs without bias correction."""
    return next((o for o in adams(optimizer) if not getattr(o, "bias_correction", True)), None)


@measurement
def uncorrected_betas(bench: Bench) -> tuple[float, float] | None:
    """Both betas of an Adam without bias correction, or None."""
    plain = uncorrected(bench.optimizer())
    if plain is None:
        return None
    b1, b2 = (float(beta) for beta in plain.betas)
    return b1, b2


def oversteps(b1: float, b2: float) -> np.ndarray:
    """How many times the learning rate each of the first 999 updates of an uncorrected Adam is."""
    steps = np.arange(1, 1000)
    return (1 - b1**steps) / np.sqrt(1 - b2**steps)


def correction(b1: float, b2: float) -> Callable[[dict, dict, int], dict]:
    """A transform of `train` that gives Adam's updates the bias correction that they lack."""

    def corrected(before, after, step):
        t = step + 1
        factor = (1 - b2**t) ** 0.5 / (1 - b1**t)
        return {n: before[n] + factor * (after[n] - before[n]) for n in after}

    return corrected
