"""Does evaluating the same model twice give the same figures?"""

from __future__ import annotations

import math

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.averages import MEAN
from mlxstories.ladder.bench.evaluation import evaluated_twice, evaluation_batches
from mlxstories.ladder.checks.evaluation import NOISE
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped


@check(
    "validation is repeatable",
    rung="trained",
    causes=("dropout-in-evaluation",),
    needs=("evaluate",),
    noise=NOISE,
)
def repeatable(bench: Bench, limits: Gauges) -> Verdict:
    """Hands ``evaluate`` a model in training mode twice, under different random states.

    Dropout that stays on makes validation look worse than the model is, and never twice the same.

    Example: no ``model.eval()`` before validation.

    Fix: ``model.eval()`` before it and ``model.train()`` after it.
    """
    if not evaluation_batches(bench):
        return skipped("no batches")
    twice = evaluated_twice(bench)
    if not limits.noise.above(twice.difference):
        return passed()
    first, second = twice.first.values, twice.second
    own = twice.first.averages[MEAN].loss
    name = (
        "loss"
        if "loss" in first
        else max(first, key=lambda key: abs(first[key] - second.get(key, first[key])))
    )
    beside = f" ({own:.4f} with dropout off)" if name == "loss" else ""
    cause = error(
        "dropout-in-evaluation",
        f"evaluating the same model twice gives a {name} of {first[name]:.4f} and of "
        f"{second.get(name, math.nan):.4f}{beside}: dropout stays on, or validation draws something at random",
        fix="call model.eval() before validation and model.train() after it",
        where="evaluate",
        first=first,
        second=second,
        loss_without_dropout=own,
    )
    return failed(f"{twice.difference:.1e} relative difference", cause)
