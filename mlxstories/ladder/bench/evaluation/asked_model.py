"""Which weights ``evaluate`` asks: those of the model that is trained, or others that it puts in or learns."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlxstories.ladder.bench.arrays import put
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.evaluation.averages import MEAN, averages
from mlxstories.ladder.bench.evaluation.calls import evaluate, evaluation_batches, heard, key_of
from mlxstories.trees import by_path


@dataclass(frozen=True)
class Swapped:
    """An untrained model while ``evaluate`` asks it, against the same model asked plainly.

    Attributes:
        names: trainable parameters that were others then; averages of weights replace all of them or none.
        count: of the trainable parameters.
        change: median change of a real place's logits, in units of their spread.
    """

    names: list[str]
    count: int
    change: float


@measurement
def swapped(bench: Bench) -> Swapped | None:
    """What ``evaluate`` puts in for an untrained model's weights; None where it does not hand its batches to the model
    as they are."""
    model, batches, changes = bench.model(), evaluation_batches(bench), []
    own, names = by_path(model.trainable_parameters()), set()

    def look():
        during = by_path(model.parameters())
        names.update(n for n, a in own.items() if n not in during or not mx.array_equal(a, during[n]))

    with heard(model, look) as said:
        evaluate(bench, model, batches, 1)
    model.eval()
    for batch in batches:
        if (told := said.get(key_of(batch.inputs))) is None or told.shape[:2] != batch.shape:
            return None
        plain = np.array(bench.logits(model, batch.inputs))
        size = min(plain.shape[-1], told.shape[-1])
        change = np.abs(told[..., :size] - plain[..., :size]).max(-1) / (float(plain.std()) or 1.0)
        changes.append(change[batch.mask > 0])
    return Swapped(sorted(names), len(own), float(np.median(np.concatenate(changes)))) if changes else None


@dataclass(frozen=True)
class Learned:
    """One batch, judged with its own targets and with others.

    Attributes:
        change: median change of a real place's last logits, in units of their spread.
        reported: the loss that ``evaluate`` tells with its own.
        last: the loss of those logits.
    """

    change: float
    reported: float
    last: float


@measurement
def learned(bench: Bench) -> Learned | None:
    """Whether what the model says to ``evaluate`` of a batch hangs on the targets that it is then scored on; None
    where that cannot be read, or where no loss is told."""
    model, batch = bench.noisy(9), evaluation_batches(bench)[0]
    kept = {name: array + 0 for name, array in by_path(model.parameters()).items()}
    others = batch.with_(targets=(batch.targets + 1) % bench.subject.vocab_size)
    answers, losses = [], []
    for given in (batch, others):
        put(model, kept)
        with heard(model) as said:
            losses.append(evaluate(bench, model, [given], 1).get("loss"))
        answers.append(said.get(key_of(batch.inputs)))
    put(model, kept)
    one, other = answers
    if one is None or other is None or one.shape != other.shape or losses[0] is None:
        return None
    change = (np.abs(one - other).max(-1) / (float(one.std()) or 1.0))[batch.mask > 0]
    return Learned(float(np.median(change)), losses[0], averages([one], [batch])[MEAN].loss)
