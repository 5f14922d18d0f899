"""How sure of a token a model could be, whatever its weights."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from mlxstories.ladder.bench.arrays import put
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.model.consistency import ask, noised, plain

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


@dataclass(frozen=True)
class CutOff:
    """Logits that lie exactly at the lowest or the highest of all.

    Attributes:
        bound: where they lie.
        share: of all logits of tokens that lie there in some places, and not in others.
        tokens: share of tokens of which that is so.
        gap: from there to the nearest other logit, as a share of the distance from lowest to highest.
    """

    bound: float
    share: float
    tokens: float
    gap: float


@measurement
def cut_off(bench: Bench) -> CutOff | None:
    """The end, lowest or highest, at which more logits of one row lie; None where all or none are the same."""
    logits = plain(bench).logits
    if not np.isfinite(logits).all() or not np.ptp(logits):
        return None
    return max((_at(logits, bound) for bound in (logits.min(), logits.max())), key=lambda found: found.share)


def _at(logits: np.ndarray, bound: float) -> CutOff:
    there = logits == bound
    some = there.any(0) & ~there.all(0)
    share = float(there[:, some].mean()) if some.any() else 0.0
    gap = float(np.abs(logits[~there] - bound).min() / np.ptp(logits))
    return CutOff(float(bound), share, float(some.mean()), gap)


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
