"""One model on one batch, asked by the training loss and by the subject's validation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.evaluation.averages import MEAN
from mlxstories.ladder.bench.evaluation.evaluation import oracle_reported
from mlxstories.ladder.bench.loss.objective import loss_formula
from mlxstories.ladder.bench.model.dependence import different
from mlxstories.ladder.bench.samples import sample
from mlxstories.ladder.bench.subject_fault import SubjectFault

_ROWS, _EXACT = 4, 1e-3


@dataclass(frozen=True)
class TrainAndEvalLosses:
    """Nats per real token of one model with noise on its weights, in evaluation mode.

    Attributes:
        trained: as the training loss says.
        validated: as ``evaluate`` says.
        apart: how much their difference moves with the targets; what the loss adds to the cross-entropy, a penalty
            say, or the balance of experts, does not.
    """

    trained: float
    validated: float
    apart: float


@measurement
def train_and_eval_losses(bench: Bench) -> TrainAndEvalLosses | None:
    """Ask both about a few training rows; None where the loss or validation is no plain mean cross-entropy of logits,
    the loss is random even in evaluation mode, or validation does not take such a batch."""
    if not _minimises_the_mean(bench) or not _validates_the_mean(bench):
        return None
    model, batch = bench.noisy(9), sample(bench).rows(slice(0, _ROWS))
    other = batch.with_(targets=different(bench, batch.targets, np.random.default_rng((bench.seed, 71))))

    def trained(batch: HostBatch, seed: int = 1) -> float:
        model.eval()
        bench.seed_all(seed)
        with bench.calling("loss"):
            return float(bench.loss(model, batch))

    def validated(batch: HostBatch) -> float:
        model.eval()
        with bench.calling("evaluate"):
            return float(dict(bench.subject.evaluate(model, [batch.user()]))["loss"])

    own = trained(batch)
    if own != trained(batch, seed=2):
        return None
    try:
        told, told_of_other = validated(batch), validated(other)
    except (SubjectFault, KeyError):
        return None
    return TrainAndEvalLosses(own, told, abs((own - told) - (trained(other) - told_of_other)))


def _minimises_the_mean(bench: Bench) -> bool:
    """Whether the loss, of known logits, is their plain mean cross-entropy."""
    found = loss_formula(bench)
    if found is None or found.shift or found.smoothing:
        return False
    return (found.sign, found.softmaxes, found.reduction) == (1, 1, "mean")


def _validates_the_mean(bench: Bench) -> bool:
    """Whether ``evaluate``, of known logits, reports their mean cross-entropy."""
    known = oracle_reported(bench)
    if known is None or "loss" not in known.values:
        return False
    right = known.averages[MEAN].loss
    return abs(known.values["loss"] - right) < _EXACT * abs(right)
