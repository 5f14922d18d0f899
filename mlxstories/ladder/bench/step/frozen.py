"""Parameters that no training moves: where they are, and whether a fresh model has others."""

from __future__ import annotations

import math
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.model.random_arrays import hidden_arrays, random_arrays
from mlxstories.ladder.bench.samples import sample
from mlxstories.ladder.bench.training.trial import score
from mlxstories.trees import by_path

_SIDE = 512  # of the part of a matrix that is looked at
_ROWS = 8
_SMALL = 8  # rows or columns of a matrix too small to tell noise from a pattern


@dataclass(frozen=True)
class Frozen:
    """Floating arrays of the fresh model that are not among its trainable parameters.

    Attributes:
        names: paths of frozen parameters.
        hidden: paths below attributes that begin with an underscore, which MLX leaves out of the parameters.
        drawn: those of both that another fresh model has other values for.
        edges: where the subject hands out one model only, so that none can be compared: of matrices, the largest
            singular value relative to that of independent random numbers of the same spread.
        gain: there too: nats per token by which the model beats guessing before any training.
        sizes: of all parameters and hidden arrays.
    """

    names: list[str]
    hidden: list[str]
    drawn: list[str]
    edges: dict[str, float]
    gain: float
    sizes: dict[str, int]


@measurement
def frozen(bench: Bench) -> Frozen:
    """Look for arrays that start at random values and stay there."""
    fresh, model = random_arrays(bench), bench.model()
    everything, hidden = by_path(model.parameters()), hidden_arrays(model)
    trainable = by_path(model.trainable_parameters())
    names = [name for name, array in everything.items() if name not in trainable and _floating(array)]
    asked = {**{name: everything[name] for name in names}, **hidden}
    sizes = {name: array.size for name, array in (everything | hidden).items()}
    if fresh is None:
        edges = {name: edge(array) for name, array in asked.items() if _is_large(array)}
        return Frozen(names, list(hidden), [], edges, _gain(bench, model) if edges else 0.0, sizes)
    others = [name for name in asked if name in fresh.others]
    # Hidden tables that every model shares weigh nothing.
    sizes = {name: size for name, size in sizes.items() if name in everything or name in others}
    return Frozen(names, list(hidden), others, {}, 0.0, sizes)


def _floating(array: mx.array) -> bool:
    return bool(array.size) and mx.issubdtype(array.dtype, mx.floating)


def _is_large(array: mx.array) -> bool:
    """Whether it is a matrix, or several, in which noise can be told from a pattern."""
    return array.ndim >= 2 and min(array.shape[-2:]) >= _SMALL


def _gain(bench: Bench, model: nn.Module) -> float:
    rows = sample(bench)
    return math.log(bench.subject.vocab_size) - score(bench, model, rows.rows(slice(0, _ROWS)))[0]


def edge(array: mx.array) -> float:
    """Largest singular value of a matrix relative to that of random numbers; infinite for constants.

    Independent numbers of spread s in m rows and n columns have singular values up to about s (sqrt m + sqrt n); what
    was learned or computed has larger ones.
    """
    matrix = np.array(array.astype(mx.float32)).reshape(-1, *array.shape[-2:])[0]
    matrix = matrix[:: max(1, matrix.shape[0] // _SIDE), :: max(1, matrix.shape[1] // _SIDE)]
    matrix = matrix[:_SIDE, :_SIDE].astype(np.float64)
    noise = float(matrix.std()) * sum(np.sqrt(side) for side in matrix.shape)
    if not noise or not np.isfinite(noise):
        return float("inf")
    return float(np.linalg.norm(matrix, 2)) / noise


@measurement
def structure(bench: Bench) -> float | None:
    """How far the trainable matrices are from random numbers: the median of `edge`, their means removed. None where
    there are none, or another fresh model has other values, which shows that they are drawn."""
    fresh = random_arrays(bench)
    matrices = {n: a for n, a in by_path(bench.model().trainable_parameters()).items() if a.ndim == 2}
    if fresh is not None and not matrices.keys() <= fresh.same:
        return None
    edges = [edge(a - a.mean()) for a in matrices.values() if _is_large(a)]
    return float(np.median(edges)) if edges else None
