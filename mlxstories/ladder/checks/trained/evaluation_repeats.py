"""Does evaluating the same model twice give the same figures?"""

from __future__ import annotations

import math

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.evaluation.averages import MEAN
from mlxstories.ladder.bench.evaluation.evaluation import (
    apart,
    around_another,
    evaluated_twice,
)
from mlxstories.ladder.checks.trained.evaluation import NOISE
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed


@check(
    "validation is repeatable",
    rung="trained",
    causes=("dropout-in-evaluation", "metric-mismatch"),
    needs=("evaluate",),
    noise=NOISE,
)
def repeatable(bench: Bench, limits: Gauges) -> Verdict:
    """Hands ``evaluate`` a model in training mode twice, under different random states; and one that draws nothing
    twice, with another between.

    Dropout that stays on makes validation look worse than the model is, and never twice the same. Where nothing is
    drawn, a figure that changes is partly that of the validations before.

    Example: no ``model.eval()`` before validation; a mean over batches that is never reset.

    Fix: ``model.eval()`` before it and ``model.train()`` after it.
    """
    both = around_another(bench)
    if both is not None and limits.noise.above(apart(*both)):
        return failed(f"{apart(*both):.1e} relative difference", _kept(*_changed(*both)))
    twice = evaluated_twice(bench)
    if not limits.noise.above(twice.difference):
        return passed()
    name, first, second = _changed(twice.first.values, twice.second)
    own = twice.first.averages[MEAN].loss
    beside = f" ({own:.4f} with dropout off)" if name == "loss" else ""
    cause = error(
        "dropout-in-evaluation",
        f"evaluating the same model twice gives a {name} of {first:.4f} and of {second:.4f}{beside}: dropout stays on, "
        "or validation draws something at random",
        fix="call model.eval() before validation and model.train() after it",
        where="evaluate",
        first=twice.first.values,
        second=twice.second,
        loss_without_dropout=own,
    )
    return failed(f"{twice.difference:.1e} relative difference", cause)


def _changed(one: dict[str, float], other: dict[str, float]) -> tuple[str, float, float]:
    """The name of a figure, the loss if there is one, and what it was each time."""
    name = "loss" if "loss" in one else max(one, key=lambda key: abs(one[key] - other.get(key, one[key])))
    return name, one[name], other.get(name, math.nan)


def _kept(name: str, first: float, second: float) -> Draft:
    return error(
        "metric-mismatch",
        f"evaluating the same model before and after another gives a {name} of {first:.4f} and of {second:.4f}, "
        "although nothing is drawn at random: validation keeps something of the validations before",
        fix="begin each validation with sums and counts of 0, or reset its metrics",
        where="evaluate",
        first=first,
        second=second,
    )
