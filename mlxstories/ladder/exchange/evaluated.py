"""What weights the setup's validation judges, compared with those that were trained."""

from __future__ import annotations

import numpy as np

from mlxstories.ladder.bench import SubjectFault
from mlxstories.ladder.bench.evaluation.averages import MEAN, averages
from mlxstories.ladder.bench.evaluation.evaluation import figures_of
from mlxstories.ladder.exchange.exchange import AS_IS, Exchange
from mlxstories.ladder.exchange.intervention import site_of
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.verdict import Draft, warning


def lagging(exchange: Exchange, limits: Gauges) -> list[Draft]:
    """A warning where validation puts in other weights, far behind those that the setup itself has trained.

    An average over more updates than an exchange makes lags, too, and catches up; so it is no error.
    """
    bench, run = exchange.bench, exchange.runs.get(AS_IS)
    if bench.subject.evaluate is None or run is None or run.broke is not None:
        return []
    try:
        judged = figures_of(bench, run.model)
    except SubjectFault:
        return []  # the ladder says why
    if judged is None:
        return []
    model = run.model
    model.eval()
    logits = [np.array(bench.logits(model, batch.inputs)) for batch in judged.batches]
    ours = averages(logits, judged.batches)[MEAN].loss
    if not limits.lags.above(judged.mean / ours - 1):
        return []
    return [
        warning(
            "behind-reference",
            f"after {run.updates} updates validation judges weights with a held-out loss of {judged.mean:.3f}, where "
            f"those that were trained have {ours:.3f} on the same batches",
            fix="look at how trained weights reach validation; an average should forget within some hundred updates",
            where=site_of("evaluation", bench.subject.evaluate),
            part="evaluation",
            updates=run.updates,
            seed=bench.seed,
            judged=judged.mean,
            trained=ours,
            curves={},
        )
    ]
