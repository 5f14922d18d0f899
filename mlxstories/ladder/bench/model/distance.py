"""Whether attention scores rise or fall with the distance between query and key."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

HIDDEN = -1e4  # scores below are masked
_LOWEST = -1e9  # a number that hides a score may leave nothing of it in float32
_FEWEST = 8  # positions of a score matrix


@dataclass(frozen=True)
class Rise:
    """The straight line through a head's scores over the distance from query to key, a mean over rows.

    Attributes:
        rise: from the nearest key to the farthest, in nats.
        fit: correlation of score and distance.
    """

    rise: float
    fit: float


def rises(scores: mx.array) -> list[Rise]:
    """One line for each head of scores [B, (H,) T, T]; masked scores, and a token's score with itself, are left out."""
    values = np.maximum(np.array(scores.astype(mx.float32)), _LOWEST)
    size = values.shape[-1]
    mean = values.reshape(values.shape[0], -1, size, size).mean(0)
    distance = np.arange(size)[:, None] - np.arange(size)
    found = []
    for head in mean if size >= _FEWEST else ():
        seen = (distance > 0) & (head > HIDDEN)
        far, score = distance[seen], head[seen]
        if seen.sum() < size or not np.isfinite(score).all() or np.ptp(score) == 0 or np.ptp(far) == 0:
            continue
        fit = float(np.corrcoef(far, score)[0, 1])
        found.append(Rise(fit * float(score.std() / far.std()) * float(np.ptp(far)), fit))
    return found
