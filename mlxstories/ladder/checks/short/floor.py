"""Is validation better than any honest model can be?"""

from __future__ import annotations

from mlxstories.findings.limits import BELOW_FLOOR
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.training.short import baselines, short_training
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import ANY, check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, skipped


@check(
    "not below the floor",
    rung="short",
    causes=("too-good-to-be-true",),
    needs=("floor", "val_batches"),
    unless=ANY,
    trained=BELOW_FLOOR,  # beyond the margins, as the next
    counted=Limit(0.05, "nats below the floor, beyond the margins"),
    margins=Limit(2, "margins"),
)
def not_below_the_floor(bench: Bench, limits: Gauges) -> Verdict:
    """Compares the validation loss of a short training, and that of mere counts, with the entropy of the source.

    No model can predict a source better than its entropy. Below it lies a leak, or another text.

    Example: validation stories in training; a model that sees the future; words written twice.

    Fix: look for the leak; give the floor of the very texts that are validated on.
    """
    short, floor = short_training(bench), bench.subject.floor
    if not short.apart:
        return skipped("too few rows to hold some out")
    chance = limits.margins.value * short.margin
    below = limits.trained.above(floor - chance - short.loss)
    counted = limits.counted.above(floor - chance - baselines(bench).best)
    detail = f"{short.loss:.2f} nats, floor {floor:.2f}"
    if below:
        return failed(detail, _leak(bench))
    if counted:
        best = baselines(bench).best
        return failed(f"counts alone reach {best:.2f} nats, floor {floor:.2f}", _other_text(bench))
    return passed(detail)


def _leak(bench: Bench) -> Draft:
    short, floor = short_training(bench), bench.subject.floor
    return error(
        "too-good-to-be-true",
        f"the validation loss, {short.loss:.2f} ± {short.margin:.2f} nats, lies below the source's entropy of "
        f"{floor:.2f}, which no honest model can reach",
        fix="look for a leak: validation stories in training, a model that sees the future, padding counted",
        where="val_batches",
        loss=short.loss,
        accuracy=short.accuracy,
        floor=floor,
        margin=short.margin,
    )


def _other_text(bench: Bench) -> Draft:
    best, floor = baselines(bench).best, bench.subject.floor
    return error(
        "too-good-to-be-true",
        f"counts of pairs and repeats alone predict validation at {best:.2f} nats, below the source's "
        f"entropy of {floor:.2f}: this is not the text that the floor belongs to",
        fix="look at the texts that reach the batches: words written twice, boilerplate, a floor of other stories",
        where="val_batches",
        counts=best,
        floor=floor,
        margin=short_training(bench).margin,
    )
