"""Validation: loss and accuracy per real token, never smoothed, by kind of token where it is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.backend import kernels
from mlxstories.batch import Batch, batch_of, shares
from mlxstories.data.dataset import Floor
from mlxstories.data.packing import Documents, Rows, pack
from mlxstories.data.source import KINDS
from mlxstories.distributed import ALONE, Group
from mlxstories.model import parameter_count
from mlxstories.training.losses import corrupt, target_nats

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
    """Evaluates one model, as often as needed, with one compiled forward pass.

    The processes of ``group`` score every so-many-th batch each; all of them get the sums over all tokens.
    """

    def __init__(self, model: nn.Module, group: Group = ALONE):
        kernels.prepare()
        self._model, self._group = model, group
        self._score = mx.compile(partial(token_scores, model), inputs=[model.state])

    def __call__(self, documents: Documents, floor: Floor | None = None) -> Evaluation:
        """Evaluate on whole stories, longer ones in pieces of the context."""
        rows = pack(documents, self._model.config.context)
        batches = np.arange(self._group.rank, math.ceil(len(rows.inputs) / ROWS), self._group.size)
        place = (batches[:, None] * ROWS + np.arange(ROWS)).reshape(-1)
        place = place[place < len(rows.inputs)]
        rows = Rows(*(field[place] for field in rows))
        self._model.eval()
        scored = []
        for index, batch in enumerate(batches.tolist()):
            scored.append(self._score(batch_of(rows, index, ROWS), mx.random.key(batch)))
            mx.async_eval(scored[-1])
        none = np.zeros((0, rows.inputs.shape[1]))
        nats, hits, weights = (np.concatenate([none, *(np.array(s[i]) for s in scored)]) for i in range(3))
        nats, hits, weights = (array[: len(place)] for array in (nats, hits, weights))
        real = weights > 0
        nats, hits = nats[real].astype(np.float64), hits[real].astype(np.float64)
        sums = [(len(nats), nats.sum(), hits.sum(), 0.0, 0.0)]
        if floor is not None and floor.kind is not None:
            sums += _by_kind(floor, documents, rows, real, nats, hits)
        return _evaluation(self._group.total(np.array(sums)))


def _by_kind(floor: Floor, documents: Documents, rows: Rows, real, nats, hits) -> list[tuple]:
    """For each kind of token: how many, and the sums of nats, hits, the source's entropy and best accuracy."""
    # A story of n words has n + 1 targets, so the targets of story i start i places after its words.
    place = documents.offsets[rows.story[real]] + rows.story[real] + rows.position[real]
    kinds, values = floor.kind[place], (nats, hits, floor.entropy[place], floor.best[place])
    alike = [kinds == kind for kind in range(len(KINDS))]
    return [(chosen.sum(), *(value[chosen].sum() for value in values)) for chosen in alike]


def _evaluation(sums: np.ndarray) -> Evaluation:
    """From sums over all tokens [1 + kinds, 5], the first row of all kinds together."""
    means = sums[:, 1:] / np.maximum(sums[:, :1], 1)
    return Evaluation(
        loss=float(means[0, 0]),
        accuracy=float(means[0, 1]),
        tokens=int(sums[0, 0]),
        by_kind={
            name: {
                "tokens": int(count),
                "loss": float(loss),
                "floor": float(entropy),
                "accuracy": float(accuracy),
                "ceiling": float(best),
            }
            for name, count, (loss, accuracy, entropy, best) in zip(
                KINDS, sums[1:, 0], means[1:], strict=False
            )
            if count
        },
    )


def token_scores(model: nn.Module, batch: Batch, key: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """Each target's negative log-probability in nats, whether the argmax hits it, and the mask; [B, T] each.

    An encoder is scored on masked tokens, drawn by ``key``; a decoder on every next token.
    """
    inputs, targets, mask = batch
    if model.config.arch == "encoder":
        (inputs, mask), targets = corrupt(inputs, mask, key, model.config.vocab_size), inputs
    scored = []
    for part, stream in shares(Batch(inputs, targets, mask), parameter_count(model)):
        with mx.stream(stream):
            scored.append(target_nats(model(part.inputs), part.targets))
    nats, hits = (mx.concatenate(parts) for parts in zip(*scored, strict=True))
    return nats, hits, mask
