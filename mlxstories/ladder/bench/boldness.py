"""How sure of a token a model could be, whatever its weights."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from mlxstories.ladder.bench.arrays import put
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.consistency import ask, noised, plain

_TIMES = (1, 8, 64, 512)


@dataclass(frozen=True)
class Boldest:
    """The row's place where logits lie farthest apart.

    Attributes:
        apart: from the largest to the smallest logit.
        surest: probability of a token whose logit is the largest while all others are the smallest; no token's is
            larger unless logits come to lie farther apart.
    """

    apart: float
    surest: float


@measurement
def boldest(bench: Bench) -> Boldest | None:
    """Show one row to a model whose weights grow up to 512-fold; None where they overflow."""
    model, row = noised(bench), plain(bench).row
    weights = {
        n: a for n, a in tree_flatten(model.parameters()) if a.size and mx.issubdtype(a.dtype, mx.floating)
    }
    apart = []
    for times in _TIMES:
        put(model, {name: times * array for name, array in weights.items()})
        apart.append(float(np.ptp(ask(bench, model, row)[0], axis=-1).max()))
    if not np.isfinite(apart).all():
        return None
    others = plain(bench).logits.shape[-1] - 1
    return Boldest(max(apart), float(1 / (1 + others * np.exp(-max(apart)))))
