"""Whether the loss counts the places of a row that are meant to count."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.loss.influence import Counted, counted_places
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, skipped, warning


@check(
    "every place counts in the loss",
    rung="init",
    causes=("wrong-loss",),
    unless=("not-finite", "targets-mismatched", "token-out-of-range"),
    share=Limit(0.1, "of the real cells"),
    length=Limit(15, "real cells in a row"),
    places=Limit(1, "places"),
    first=Limit(0.5, "of the real cells, those of the first places"),
)
def places(bench: Bench, limits: Gauges) -> Verdict:
    """Takes the gradient of the loss with respect to logits, and counts the real cells where there is any.

    A model learns only from the targets that enter its loss; the work for all others is lost.

    Example: `cross_entropy(logits[:, -1], targets[:, -1])`, the habit of a classifier; `logits[:, :8]`, left from a
    trial.

    Fix: `cross_entropy(logits, targets)` of all places, weighed with the mask.
    """
    found = counted_places(bench)
    if found is None:
        return skipped("it needs more of a model than its logits, or is the default")
    share = found.counted / found.real
    detail = f"{share:.0%} of the real cells"
    if found.prefix and limits.first.below(share):
        return failed(detail, _draft(bench, error, found))
    if not limits.share.below(share) or not found.counted:
        return passed(detail)
    one = limits.length.above(found.length) and not limits.places.above(len(found.places))
    return (
        failed(detail, _draft(bench, error, found)) if one else passed(detail, _draft(bench, warning, found))
    )


def _draft(bench: Bench, severity, found: Counted) -> Draft:
    which = f", the first {found.prefix} places of each row" if found.prefix else ""
    return severity(
        "wrong-loss",
        f"the loss depends on {found.counted} of {found.real} real cells of a batch{which}: the targets of the others "
        "teach nothing",
        fix="let the loss count every place of a row; where only some are meant to count, say so in the mask",
        where="loss" if bench.subject.loss is not None else "train_step",
        counted=found.counted,
        real=found.real,
        places=found.places[:8],
    )
