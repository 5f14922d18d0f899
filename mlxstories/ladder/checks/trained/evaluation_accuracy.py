"""Is the validation accuracy the share of real tokens that are right?"""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.evaluation.averages import MEAN, PADDED, UNEQUAL
from mlxstories.ladder.checks.trained.evaluation import CLOSE, NOISE, near, report, unsettled
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped, warning


@check(
    "its accuracy agrees with ours",
    rung="trained",
    causes=("metric-mismatch", "padding-in-accuracy"),
    needs=("evaluate",),
    close=CLOSE,
    noise=NOISE,
)
def validation_accuracy(bench: Bench, limits: Gauges) -> Verdict:
    """Feeds ``evaluate`` logits that are right in a third of the real cells and in nearly all of the padding, and
    counts again.

    Padding is easily predicted: counted, it lifts any accuracy.

    Example: ``(argmax == targets).mean()``; a hit where the target is among the first two.

    Fix: count argmax == target where the mask is 1, divided by the number of such cells.
    """
    found = report(bench, limits)
    if found is None or "accuracy" not in found.values:
        return skipped(unsettled(found, "accuracy"))
    value, ways = found.values["accuracy"], found.averages
    accuracy = ways[MEAN].accuracy
    detail = f"{accuracy:.2%} on our test batches"
    if any(near(value, ways[name].accuracy, limits) for name in (MEAN, *UNEQUAL)):
        return passed(detail)
    padded = any(near(value, ways[name].accuracy, limits) for name in PADDED)
    percent = near(value / 100, accuracy, limits)
    remark = ": padding is counted" if padded else ": it is in percent" if percent else ""
    finding = (warning if percent else error)(
        "padding-in-accuracy" if padded else "metric-mismatch",
        f"the validation reports an accuracy of {value:.4f} where {accuracy:.4f} of the real tokens are right{remark}",
        fix="count argmax == target where the mask is 1, divided by the number of such cells",
        where="evaluate",
        reported=value,
        recomputed=accuracy,
    )
    return failed(f"{value:.4g}, and ours is {accuracy:.4f} on our test batches", finding)
