"""Whether validation is unseen."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.data.overlap import Overlap, overlaps
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped, warning


@check(
    "validation is unseen",
    rung="data",
    causes=("train-val-overlap",),
    unless=("token-out-of-range",),
    quick=True,
    some=Limit(0.005, "of validation, beyond what repeats in training"),
    much=Limit(0.03, "of validation, beyond what repeats in training"),
    natural=Limit(2, "times what repeats within training, which is no leak"),
    chance=Limit(2, "standard errors of that, besides"),
)
def unseen(bench: Bench, limits: Gauges) -> Verdict:
    """Counts validation texts with a near duplicate in training, rows that are training rows, and windows of up to 32
    tokens that stand in training too; beside it, how much repeats within training itself.

    What was trained on is remembered: validation then measures memory.
    Example: `random.shuffle` after the split, on the joined list; or packing before splitting.
    Fix: split by story after removing exact and near duplicates, then tokenize and pack each side alone.
    """
    found = overlaps(bench)
    if not found:
        return skipped("no validation data given")
    detail = "shared with training: " + ", ".join(f"{item.shared:.1%} of {item.kind}" for item in found)
    times = limits.natural.value
    most = max(found, key=lambda item: item.shared - times * item.natural)
    margin = limits.chance.value * (most.natural * (1 - most.natural) / max(most.count, 1)) ** 0.5
    excess = most.shared - times * most.natural - margin
    if limits.some.below(excess):
        return passed(detail)
    much = not limits.much.below(excess)
    draft = (error if much else warning)("train-val-overlap", **_finding(most, margin, found))
    return failed(detail, draft) if much else passed(detail, draft)


def _finding(most: Overlap, margin: float, found: list[Overlap]) -> dict:
    return {
        "message": f"{most.shared:.1%} of the validation {most.kind} also stand in the training data "
        f"(within the training data itself {most.natural:.1%} repeat)",
        "fix": "split by story after removing exact and near duplicates, then tokenize and pack each side alone",
        "where": "val_texts" if most.kind == "texts" else "val_batches",
        "shared": most.shared,
        "repeated_within_training": most.natural,
        "margin": margin,
        **{f"shared_{item.kind}": item.shared for item in found},
    }
