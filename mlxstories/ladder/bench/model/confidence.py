"""How sure of a token a model could be, and how far apart its attention scores could lie, whatever its weights."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlxstories.ladder.bench.arrays import put
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.model.consistency import ask, noised, plain
from mlxstories.ladder.bench.model.distance import HIDDEN
from mlxstories.ladder.bench.model.forward_pass import watched_scores
from mlxstories.trees import by_path

_TIMES = (1, 8, 64, 512)


@dataclass(frozen=True)
class HighestConfidence:
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
        tokens: share of the tokens of which that is true.
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


@dataclass(frozen=True)
class _Grown:
    """One row shown to a model whose weights grow: for each size of the weights, how far apart the logits, and the
    scores of each softmax over keys, lie at a place."""

    logits: list[float]
    scores: list[list[float]]


@measurement
def _grown(bench: Bench) -> _Grown:
    model, row, found = noised(bench), plain(bench).row, _Grown([], [])
    weights = {
        n: a for n, a in by_path(model.parameters()).items() if a.size and mx.issubdtype(a.dtype, mx.floating)
    }
    for times in _TIMES:
        put(model, {name: times * array for name, array in weights.items()})
        found.scores.append([])
        with watched_scores(lambda scores, added: found.scores[-1].append(_apart(scores + added))):
            found.logits.append(float(np.ptp(ask(bench, model, row)[0], axis=-1).max()))
    return found


def _apart(scores: mx.array) -> float:
    """Largest distance between two scores that one query can see."""
    values = np.array(scores.astype(mx.float32))
    seen = (values > HIDDEN) & np.tri(values.shape[-1], dtype=bool)
    highest, lowest = (
        end(np.where(seen, values, rest), axis=-1) for end, rest in ((np.max, -np.inf), (np.min, np.inf))
    )
    return float(np.max(highest - lowest, initial=0.0, where=seen.any(-1)))


@measurement
def highest_confidence(bench: Bench) -> HighestConfidence | None:
    """Show one row to a model whose weights grow up to 512-fold; None where they overflow."""
    apart = _grown(bench).logits
    if not np.isfinite(apart).all():
        return None
    others = plain(bench).logits.shape[-1] - 1
    return HighestConfidence(max(apart), float(1 / (1 + others * np.exp(-max(apart)))))


@measurement
def flattest_scores(bench: Bench) -> float | None:
    """The largest distance that the scores of one softmax over keys reach, for the softmax where it is smallest. None
    where there is no such softmax, or all scores are the same on purpose."""
    found = _grown(bench).scores
    if len({len(one) for one in found}) > 1:
        return None
    apart = [max(sizes) for sizes in zip(*found, strict=True)]
    return min((far for far in apart if far > 0), default=None)
