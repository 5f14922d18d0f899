"""Whether the model is asked to restore tokens that were replaced, instead of predicting the next one."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlxstories.ladder.bench.arrays import Answers
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.epochs import train_epoch
from mlxstories.ladder.bench.loss.convention import first_logits, gradient_at
from mlxstories.ladder.bench.samples import sample

_ROWS, _LENGTH = 8, 64
_CELLS = 16_000_000  # logits, at most


@dataclass(frozen=True)
class Replaced:
    """Cells in which the model reads another id than the one that it is asked for.

    Attributes:
        cells: how many.
        alike: share of them that show it: that hold the one id that stands for all, in rows; whose own id is asked for,
            in a loss.
        rest: share of the other cells that hold what would be asked, or are not asked.
        token: that id, of rows.
        asked: share of the targets that are it.
    """

    cells: int
    alike: float
    rest: float = 1.0
    token: int | None = None
    asked: float = 0.0


@measurement
def replaced_in_rows(bench: Bench) -> Replaced | None:
    """Look at the rows as they are handed over; the commonest input that is not its own target is taken for the mask
    id. None where inputs are targets."""
    batches = train_epoch(bench).batches
    inputs, targets, real = (
        np.concatenate(parts)
        for parts in zip(
            *((b.inputs.ravel(), b.targets.ravel(), b.mask.ravel() > 0) for b in batches), strict=True
        )
    )
    differ = real & (inputs != targets)
    if not differ.any():
        return None
    ids, counts = np.unique(inputs[differ], return_counts=True)
    token = int(ids[counts.argmax()])
    others = inputs != token
    unasked = ~real & (targets < 0)
    rest = (unasked | (inputs == targets))[others].mean() if others.any() else 0.0
    asked = float((targets[real] == token).mean())
    return Replaced(int(differ.sum()), float(counts.max() / counts.sum()), float(rest), token, asked)


@measurement
def replaced_in_loss(bench: Bench) -> Replaced | None:
    """Look at the ids that the loss gives to its model; None where they are those that it was given, or it needs more
    of a model than logits."""
    if bench.subject.loss is None:
        return None
    batch = sample(bench).rows(slice(0, _ROWS)).cut(_LENGTH)
    if np.prod((*batch.shape, bench.subject.vocab_size)) > _CELLS:
        return None
    model = Answers(mx.array(first_logits(bench, batch)))
    bench.seed_all(bench.seed)
    try:
        bench.loss(model, batch)
        read = np.array(model._asked)
    except Exception:  # it needs more of a model than logits
        return None
    if read.shape != batch.shape or not (read != batch.inputs).any():
        return None
    bench.seed_all(bench.seed)
    gradient = gradient_at(bench, batch)
    if gradient is None:
        return None
    cells = (read != batch.inputs) & (np.abs(gradient).max(-1) > 0)
    alike = (gradient.argmin(-1) == batch.inputs)[cells]
    return Replaced(int(cells.sum()), float(alike.mean()) if cells.any() else 0.0)
