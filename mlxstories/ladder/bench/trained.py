"""The model that the climb has trained so far, and what its positions see."""

from __future__ import annotations

import mlx.nn as nn

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.dependence import Dependence, dependence, dependence_matrix, harm
from mlxstories.ladder.bench.memorising import memorising
from mlxstories.ladder.bench.short import short_training


def memorised_model(bench: Bench) -> nn.Module | None:
    """The model that memorised a few stories; None where it was not asked to, or broke down."""
    taken = bench.taken.get(memorising)
    return taken.trial.model if taken is not None and taken.trial.finite else None


def trained_model(bench: Bench) -> nn.Module | None:
    """The model of the short training, else the one that memorised; nothing is trained for this question."""
    taken = bench.taken.get(short_training)
    return taken.trial.model if taken is not None and taken.trial.finite else memorised_model(bench)


@measurement
def sight_after_training(bench: Bench) -> Dependence | None:
    """What each position of the trained model depends on."""
    model = trained_model(bench)
    return None if model is None else dependence(bench, model, seed=4)


@measurement
def matrix_after_training(bench: Bench) -> list[list[float]] | None:
    """Which position of the trained model sees which."""
    model = trained_model(bench)
    return None if model is None else dependence_matrix(bench, model)


@measurement
def gain_from_later_tokens(bench: Bench) -> float | None:
    """Nats a token that the trained model gains from what follows."""
    model = trained_model(bench)
    if model is None:
        return None
    mode = model.training
    model.eval()
    gain = harm(bench, model)
    model.train(mode)
    return gain
