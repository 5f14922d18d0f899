"""Validation: loss and accuracy per real token, never smoothed, by kind of token where it is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import mlx.core as mx
import numpy as np

from mlxstories.batch import Batch, batch_of
from mlxstories.data.dataset import Floor
from mlxstories.data.packing import Documents, Rows, pack
from mlxstories.data.source import KINDS
from mlxstories.losses import corrupt
from mlxstories.model import Transformer

ROWS = 16  # of an evaluation batch


@dataclass(frozen=True)
class Evaluation:
    """What a model reached on held-out stories.

    Attributes:
        loss: mean nats per real token.
        accuracy: share of real tokens whose argmax is the target.
        tokens: real tokens evaluated.
        by_kind: for each kind of token of the story source, its ``tokens``, ``loss`` and ``accuracy``, and
            the ``floor`` and ``ceiling`` of the source itself; empty where kinds are not known.
    """

    loss: float
    accuracy: float
    tokens: int
    by_kind: dict[str, dict[str, float]]


class Evaluator:
    """Evaluates one model, as often as needed, with one compiled forward pass."""

    def __init__(self, model: Transformer):
        self._model = model
        self._score = mx.compile(partial(token_scores, model), inputs=[model.state])

    def __call__(self, documents: Documents, floor: Floor | None = None) -> Evaluation:
        """Evaluate on whole stories, longer ones in pieces of the context."""
        rows = pack(documents, self._model.config.context)
        self._model.eval()
        scored = []
        for index in range(math.ceil(len(rows.inputs) / ROWS)):
            scored.append(self._score(batch_of(rows, index, ROWS), mx.random.key(index)))
            mx.async_eval(scored[-1])
        nats, hits, weights = (np.concatenate([np.array(s[i]) for s in scored]) for i in range(3))
        real = weights[: len(rows.inputs)] > 0
        nats, hits = (array[: len(rows.inputs)][real].astype(np.float64) for array in (nats, hits))
        return Evaluation(
            loss=float(nats.mean()),
            accuracy=float(hits.mean()),
            tokens=len(nats),
            by_kind={}
            if floor is None or floor.kind is None
            else _by_kind(floor, documents, rows, real, nats, hits),
        )


def _by_kind(floor: Floor, documents: Documents, rows: Rows, real, nats, hits) -> dict[str, dict[str, float]]:
    # A story of n words has n + 1 targets, so the targets of story i start i places after its words.
    place = documents.offsets[rows.story[real]] + rows.story[real] + rows.position[real]
    kinds, entropy, best = floor.kind[place], floor.entropy[place], floor.best[place]
    return {
        name: {
            "tokens": int((kinds == kind).sum()),
            "loss": float(nats[kinds == kind].mean()),
            "floor": float(entropy[kinds == kind].mean()),
            "accuracy": float(hits[kinds == kind].mean()),
            "ceiling": float(best[kinds == kind].mean()),
        }
        for kind, name in enumerate(KINDS)
        if (kinds == kind).any()
    }


def token_scores(model: Transformer, batch: Batch, key: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """Each target's negative log-probability in nats, whether the argmax hits it, and the mask; [B, T] each.

    An encoder is scored on masked tokens, drawn by ``key``; a decoder on every next token.
    """
    inputs, targets, mask = batch
    if model.config.arch == "encoder":
        (inputs, mask), targets = corrupt(inputs, mask, key, model.config.vocab_size), inputs
    logits = model(inputs).astype(mx.float32)
    chosen = mx.take_along_axis(logits, targets[..., None], axis=-1).squeeze(-1)
    return mx.logsumexp(logits, axis=-1) - chosen, mx.argmax(logits, axis=-1) == targets, mask
