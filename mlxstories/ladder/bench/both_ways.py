"""One model on one batch, asked by the training loss and by the subject's validation."""

from __future__ import annotations

from dataclasses import dataclass

from mlxstories.ladder.bench.averages import MEAN
from mlxstories.ladder.bench.bench import Bench, SubjectFault, measurement
from mlxstories.ladder.bench.evaluation import oracle_reported
from mlxstories.ladder.bench.material import sample
from mlxstories.ladder.bench.objective import loss_formula

_ROWS, _EXACT = 4, 1e-3
_SEEDS = (1, 2)


@dataclass(frozen=True)
class BothWays:
    """Nats per real token of one model with noise on its weights, in evaluation mode.

    Attributes:
        trained: as the training loss says.
        validated: as ``evaluate`` says.
    """

    trained: float
    validated: float


@measurement
def both_ways(bench: Bench) -> BothWays | None:
    """Ask both about a few training rows; None where loss or validation is no plain mean cross-entropy of logits, the
    loss is random even in evaluation mode, or validation takes no such batch."""
    formula = loss_formula(bench)
    if formula is None or (formula.softmaxes, formula.shift, formula.smoothing) != (1, 0, 0.0):
        return None
    if formula.reduction != "mean" or not _validates_the_mean(bench):
        return None
    model, batch = bench.noisy(9), sample(bench).rows(slice(0, _ROWS))
    values = []
    for seed in _SEEDS:
        model.eval()
        bench.seed_all(seed)
        with bench.calling("loss"):
            values.append(float(bench.loss(model, batch)))
    try:
        with bench.calling("evaluate"):
            model.eval()
            validated = float(dict(bench.subject.evaluate(model, [batch.user()]))["loss"])
    except (SubjectFault, KeyError):
        return None
    return BothWays(values[0], validated) if values[0] == values[1] else None


def _validates_the_mean(bench: Bench) -> bool:
    """Whether ``evaluate``, of known logits, reports their mean cross-entropy."""
    known = oracle_reported(bench)
    if known is None or "loss" not in known.values:
        return False
    right = known.averages[MEAN].loss
    return abs(known.values["loss"] - right) < _EXACT * abs(right)
