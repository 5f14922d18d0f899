"""The model that the climb has trained so far, and what its positions see."""

from __future__ import annotations

import mlx.nn as nn

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.model.dependence import Dependence, dependence, dependence_matrix, harm
from mlxstories.ladder.bench.training.memorising import memorising, start_loss
from mlxstories.ladder.bench.training.short import short_training
from mlxstories.ladder.bench.training.trial import Trial
from mlxstories.ladder.modes import in_mode


def memorised_model(bench: Bench) -> nn.Module | None:
    """The model that memorised a few stories; None where it was not asked to, or broke down."""
    taken = bench.taken.get(memorising)
    return taken.trial.model if taken is not None and taken.trial.finite else None


def trained_model(bench: Bench) -> nn.Module | None:
    """The model of the short training if there was one, else the one that memorised; nothing is trained just to
    answer."""
    taken = bench.taken.get(short_training)
    return taken.trial.model if taken is not None and taken.trial.finite else memorised_model(bench)


def well_trained_model(bench: Bench) -> nn.Module | None:
    """Of these two the first that knows more than at its start. Weights that have exploded say nothing about how a
    model is built: their scores overrun a mask of -1e9, and rounding moves what should stay."""
    taken = [bench.taken[made].trial for made in (short_training, memorising) if made in bench.taken]
    return next((trial.model for trial in taken if _went_well(bench, trial)), None)


def _went_well(bench: Bench, trial: Trial) -> bool:
    return trial.finite and bool(trial.points) and trial.end < start_loss(bench)


@measurement
def sight_after_training(bench: Bench) -> Dependence | None:
    """What each position of the trained model depends on; None where training went nowhere."""
    model = well_trained_model(bench)
    return None if model is None else dependence(bench, model, seed=4)


@measurement
def matrix_after_training(bench: Bench) -> list[list[float]] | None:
    """Which position of the trained model sees which."""
    model = well_trained_model(bench)
    return None if model is None else dependence_matrix(bench, model)


@measurement
def gain_from_later_tokens(bench: Bench) -> float | None:
    """Nats a token that the trained model gains from what follows."""
    model = well_trained_model(bench)
    if model is None:
        return None
    with in_mode(model, training=False):
        return harm(bench, model)
