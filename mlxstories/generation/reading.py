"""How a model reads a story: what it thought of each token before it saw it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.backend import kernels


@dataclass(frozen=True, eq=False)
class Reading:
    """A story of n tokens as a model sees it, each token given those before it.

    Attributes:
        tokens: the ids read, int32 [n].
        probability: the model's probability of each token, float32 [n].
        entropy: of the model's distribution there, in nats, float32 [n].
        likeliest: the id that the model held for the most probable, int32 [n].
    """

    tokens: np.ndarray
    probability: np.ndarray
    entropy: np.ndarray
    likeliest: np.ndarray


def read(model: nn.Module, stories: Sequence[Sequence[int]], *, end: int = 0) -> list[Reading]:
    """Read stories from their beginning, one a row; the model is left in the mode it was in.

    Args:
        model: int32 [B, T] to logits [B, T, V]; a decoder, whose rows begin with ``end``.
        stories: token ids, at most the context of them; a story's ``end`` is read where it is given.
    """
    longest = max(map(len, stories), default=0)
    if longest == 0:
        return []
    inputs = np.full((len(stories), longest), end, dtype=np.int32)
    targets = inputs.copy()
    for row, story in enumerate(stories):
        inputs[row, 1 : len(story)] = story[:-1]
        targets[row, : len(story)] = story
    kernels.prepare()
    was_training = model.training
    try:
        model.eval()
        logits = model(mx.array(inputs)).astype(mx.float32)
        logs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        probability = mx.exp(mx.take_along_axis(logs, mx.array(targets)[..., None], axis=-1).squeeze(-1))
        # A banned token has log 0 = -inf, whose part in the entropy is 0.
        entropy = -mx.sum(mx.where(mx.isinf(logs), 0.0, mx.exp(logs) * logs), axis=-1)
        found = [np.array(array) for array in (probability, entropy, mx.argmax(logits, axis=-1))]
    finally:
        model.train(was_training)
    return [
        Reading(targets[row, :length], *(array[row, :length] for array in found))
        for row, length in enumerate(map(len, stories))
    ]
