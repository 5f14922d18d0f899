"""How far a change of each matrix moves the logits, beside the gradient that the matrix receives."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from mlxstories.ladder.bench.arrays import put
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.model.consistency import ask, noised, plain, short
from mlxstories.trees import by_path

_MATRICES, _LENGTH = 48, 32


@dataclass(frozen=True)
class Effect:
    """One matrix.

    Attributes:
        name: its path.
        gradient: norm of its gradient relative to that of all.
        moved: largest change of a logit, relative to their spread, when noise as large as its weights is added.
    """

    name: str
    gradient: float
    moved: float


@measurement
def effects(bench: Bench) -> list[Effect]:
    """Add noise to one matrix at a time, to at most 48 spread over the model; none with weights of 16 bits."""
    first, model = plain(bench), noised(bench)
    if not first.full_precision or not tree_flatten(model.trainable_parameters()):
        return []
    batch = short(bench, slice(2), _LENGTH)
    model.eval()
    norms = {n: float(mx.linalg.norm(g)) for n, g in bench.gradients(model, batch).items()}
    whole = float(np.linalg.norm(list(norms.values()))) or 1.0
    weights = {n: a for n, a in by_path(model.trainable_parameters()).items() if _is_matrix(a)}
    names = [n for n in weights if norms.get(n)]
    # The very rows of the gradient: an expert that no token chooses moves nothing, and gets none.
    rows, rng = batch.inputs, np.random.default_rng((bench.seed, 31))
    before, found = ask(bench, model, rows), []
    for name in names[:: max(1, -(-len(names) // _MATRICES))]:
        noise = rng.standard_normal(weights[name].shape, dtype=np.float32)
        put(model, {name: weights[name] + mx.array(noise / np.sqrt(noise.shape[-1], dtype=np.float32))})
        moved = float(np.abs(ask(bench, model, rows) - before).max()) / first.spread
        put(model, {name: weights[name]})
        found.append(Effect(name, norms[name] / whole, moved))
    return found


def _is_matrix(array: mx.array) -> bool:
    return array.ndim > 1 and array.size > 0 and mx.issubdtype(array.dtype, mx.floating)
