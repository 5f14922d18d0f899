"""Whether validation asks the model that is trained."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.evaluation import evaluated_fresh
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped


@check(
    "validation asks the model that is trained",
    rung="trained",
    causes=("metric-mismatch",),
    needs=("evaluate",),
    unless=(
        *(
            "token-out-of-range",
            "not-finite",
            "not-repeatable",
            "batch-leak",
            "future-leak",
            "length-dependent",
        ),
        *("stale-computation", "evaluation-changes-state", "dropout-in-evaluation"),
    ),
    apart=Limit(0.2, "of the logits' spread"),
)
def asks_the_model(bench: Bench, limits: Gauges) -> Verdict:
    """Compares what an untrained model says to ``evaluate`` with what it says of the same rows when asked plainly.

    Averages of weights are the weights themselves before any training, so the two are one; where they are not,
    validation puts other weights in, or calls the model in another way, and reports on what nobody trains.
    Example: output and embedding, trained as two matrices, tied again by the code that loads them for validation.
    Fix: evaluate the model as it is, or an average that starts from its weights.
    """
    change = evaluated_fresh(bench)
    if change is None:
        return skipped("its batches do not reach the model as they are")
    detail = f"{change:.1e} of the logits' spread"
    if not limits.apart.above(change):
        return passed(detail)
    return failed(
        detail,
        error(
            "metric-mismatch",
            f"an untrained model says something else to evaluate than when it is asked plainly: logits differ by "
            f"{change:.2g} of their spread, so the figures are not those of the model that is trained",
            fix="evaluate the model with its own weights and called as in training, or with an average that starts "
            "from its weights",
            where="evaluate",
            change=change,
        ),
    )
