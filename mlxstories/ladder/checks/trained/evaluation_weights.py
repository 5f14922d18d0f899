"""Whether validation asks the model that is trained, and has not taught it what it asks."""

from __future__ import annotations

from mlxstories.errors import shortened
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.evaluation.asked_model import learned, swapped
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
    """Compares what an untrained model says to ``evaluate``, and its weights meanwhile, with what it says when asked
    plainly.

    Validation may put other weights in: averages, of all of them. Where it exchanges only some of them, it reports on
    a model that nobody trains.
    Example: output and embedding, trained as two matrices, tied again by the code that loads them for validation.
    Fix: evaluate the model as it is, or an average of all of its weights.
    """
    found = swapped(bench)
    if found is None:
        return skipped("its batches do not reach the model as they are")
    detail = (
        f"{len(found.names)} of {found.count} weights exchanged, {found.change:.1e} of the logits' spread"
    )
    some = found.names and len(found.names) < found.count
    if not some or not limits.apart.above(found.change):
        return passed(detail)
    return failed(
        detail,
        error(
            "metric-mismatch",
            f"while evaluate runs, {shortened(found.names, 2)} of the model "
            f"{'is' if len(found.names) == 1 else 'are'} exchanged for other weights, and logits differ by "
            f"{found.change:.2g} of their spread: the figures are not those of the model that is trained",
            fix="evaluate the model with its own weights, or with an average of all of them; weights that are to be "
            "tied must be one in training too",
            where="evaluate",
            exchanged=found.names,
            change=found.change,
        ),
    )


@check(
    "validation does not learn what it scores",
    rung="trained",
    causes=("metric-mismatch",),
    needs=("evaluate",),
    unless=(
        "token-out-of-range",
        "not-finite",
        "not-repeatable",
        "stale-computation",
        "dropout-in-evaluation",
    ),
    change=Limit(1e-3, "of the logits' spread"),
    close=Limit(1e-3, "of the loss"),
)
def learns_nothing(bench: Bench, limits: Gauges) -> Verdict:
    """Validates a batch with its own targets and with others. Does the model say something else of the same tokens?

    Where it does, and the loss that is told is of what it said, it has learned from what it is then scored on. To
    learn from a batch that has been scored is sound.
    Example: steps on the validation batches, as to warm up a compiled step or to adapt to a text, and then their loss.
    Fix: score each batch before anything is learned from it, or learn from other data.
    """
    found = learned(bench)
    if found is None:
        return skipped("its batches do not reach the model as they are, or it tells no loss")
    detail = f"{found.change:.1e} of the logits' spread"
    scored = limits.close.below(abs(found.reported - found.last) / max(found.last, 1e-9))
    if not limits.change.above(found.change) or not scored:
        return passed(detail)
    return failed(
        detail,
        error(
            "metric-mismatch",
            f"what the model says to evaluate of the same tokens changes by {found.change:.2g} of the logits' spread "
            f"when their targets do, and the loss that is told, {found.reported:.3f}, is of that: it learns from what "
            "it is then scored on",
            fix="score each batch before anything is learned from it",
            where="evaluate",
            change=found.change,
            reported=found.reported,
        ),
    )
