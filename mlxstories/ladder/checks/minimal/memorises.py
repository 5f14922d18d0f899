"""Whether a handful of stories can be memorised."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.samples import minimal_batch
from mlxstories.ladder.bench.training.memorising import ACCURATE, LEFT, memorising, start_loss
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import ANY, check
from mlxstories.ladder.verdict import Verdict, failed, passed


@check(
    "memorises a few stories",
    rung="minimal",
    unless=ANY,
    left=Limit(LEFT, "of the first loss"),
    accuracy=Limit(ACCURATE, "of the tokens"),
)
def memorises(bench: Bench, limits: Gauges) -> Verdict:
    """Trains on one batch of a few rows, again and again, and judges the best point on the way.

    Any working setup memorises a handful of stories within a hundred steps. One that does not will learn nothing
    from more of them.

    Example: a learning rate of 1e-6, weight decay of 100, a loss of shuffled targets.

    Fix: the next rung tries other rates, and takes away decay, clipping and penalties one by one, to name the cause.
    """
    found = memorising(bench)
    rows = minimal_batch(bench).shape[0]
    figure = {"points": found.points, "rows": rows, "steps": len(found.trial.losses)}
    step, loss, accuracy = found.best if found.learned else found.points[-1]
    limits.left.below(loss / start_loss(bench))
    limits.accuracy.above(accuracy)
    detail = f"{accuracy:.1%} of the tokens, {loss:.2f} nats after {step} steps on {rows} rows"
    return (passed if found.learned else failed)(detail, overfit=figure)
