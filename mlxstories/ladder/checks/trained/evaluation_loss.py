"""Is the validation loss the mean over real tokens, and if not, what is it?"""

from __future__ import annotations

from math import log

from mlxstories.findings import ERROR
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.evaluation.averages import MEAN, PADDED, UNEQUAL, averages
from mlxstories.ladder.bench.evaluation.evaluation import Reported, own_figures
from mlxstories.ladder.checks.trained.evaluation import CLOSE, NOISE, near, report, unsettled
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, skipped, warning


@check(
    "validation agrees with ours",
    rung="trained",
    causes=("metric-mismatch", "padding-in-accuracy", "smoothed-validation-loss"),
    needs=("evaluate",),
    close=CLOSE,
    noise=NOISE,
    moved=Limit(0.01, "of the loss of validation's own batches"),
    least=Limit(0.004, "of label smoothing"),
    most=Limit(0.6, "of label smoothing"),
    round=Limit(1e-4, "from a multiple of 0.005"),
)
def validation_loss(bench: Bench, limits: Gauges) -> Verdict:
    """Feeds ``evaluate`` logits that are known and batches with much padding, and recomputes its loss; where they
    differ, tries every other way of averaging that occurs in practice.

    Two runs cannot be compared by a loss that depends on batch size, padding or smoothing.

    Example: the mean of batch means; ``cross_entropy(...).mean()`` over padding; perplexity called loss.

    Fix: sum -log p of all real tokens, in nats, and divide once by their number.
    """
    found = report(bench, limits)
    if found is None or "loss" not in found.values:
        return skipped(unsettled(found, "loss"))
    value, mean = found.values["loss"], found.averages[MEAN]
    detail = f"loss {mean.loss:.4f}, accuracy {mean.accuracy:.2%} on our test batches"
    if near(value, mean.loss, limits):
        return passed(detail)
    detail = f"{value:.4f}, and ours is {mean.loss:.4f} nats on our test batches"
    if (remark := _unequal(bench, value, found, limits)) is not None:
        return (failed if remark.severity == ERROR else passed)(detail, remark)
    return failed(
        detail,
        _padded(value, found, limits) or _smoothed(value, found, limits) or _other(value, found, limits),
    )


def _evidence(value: float, found: Reported) -> dict[str, float]:
    return {"reported": value, "recomputed": found.averages[MEAN].loss}


def _unequal(bench: Bench, value: float, found: Reported, limits: Gauges) -> Draft | None:
    ways = found.averages
    name = next((name for name in UNEQUAL if near(value, ways[name].loss, limits)), None)
    if name is None:
        return None
    own, reported, right, moved = own_figures(bench), value, ways[MEAN].loss, False
    if own is not None and "loss" in own.values:
        moved = limits.moved.above(abs(own.values["loss"] - own.mean) / max(abs(own.mean), 1e-9))
        reported, right = (own.values["loss"], own.mean) if moved else (reported, right)
    batches = "its own batches" if moved else "our test batches"
    return (error if moved else warning)(
        "metric-mismatch",
        f"the validation loss is the {name}, which weighs tokens unequally: {reported:.4f} on {batches}, per token "
        f"{right:.4f}",
        fix="sum the nats of all real tokens and divide once by their number",
        where="evaluate",
        **_evidence(value, found),
    )


def _padded(value: float, found: Reported, limits: Gauges) -> Draft | None:
    ways = found.averages
    if not any(near(value, ways[name].loss, limits) for name in PADDED):
        return None
    return error(
        "padding-in-accuracy",
        f"the validation loss counts padding: {value:.4f} instead of {ways[MEAN].loss:.4f} on our test batches",
        fix="weigh losses and hits by batch.mask",
        where="evaluate",
        **_evidence(value, found),
    )


def _smoothed(value: float, found: Reported, limits: Gauges) -> Draft | None:
    ways = found.averages
    if _in_words(value, found, limits):
        return None
    for name, way in ways.items():
        smoothing = way.smoothing(value)
        if not _plausible(smoothing, limits):
            continue
        return error(
            "smoothed-validation-loss",
            f"the validation loss contains label smoothing of {smoothing:.2g}: {value:.4f} where the plain loss "
            f"is {ways[MEAN].loss:.4f}",
            fix="validate with label_smoothing=0",
            where="evaluate",
            label_smoothing=smoothing,
            averaging=name,
            **_evidence(value, found),
        )
    return None


def _plausible(smoothing: float, limits: Gauges) -> bool:
    """Smoothing is a round number; anything else is a coincidence."""
    if not (limits.least.above(smoothing) and limits.most.below(smoothing)):
        return False
    return limits.round.below(abs(smoothing - round(smoothing * 200) / 200))


def _other(value: float, found: Reported, limits: Gauges) -> Draft:
    words = _in_words(value, found, limits)
    return error(
        "metric-mismatch",
        f"the validation reports a loss of {value:.4f} where the mean over real tokens is "
        f"{found.averages[MEAN].loss:.4f} nats" + (f": it is {words}" if words else ""),
        fix="sum -log p of all real tokens, in nats, and divide once by their number",
        where="evaluate",
        **_evidence(value, found),
    )


def _in_words(value: float, found: Reported, limits: Gauges) -> str | None:
    """What a loss is that is not the mean over all real tokens, nor over anything else in full."""
    batches, ways = found.batches, found.averages
    if near(log(max(value, 1e-30)), ways[MEAN].loss, limits):
        return "a perplexity"
    scales = ((1 / log(2), "in bits"), (-1, "negated"), (len(batches), "summed over batches"))
    for factor, words in scales:
        if any(near(value, factor * ways[name].loss, limits) for name in (MEAN, UNEQUAL[0])):
            return words
    for count in range(1, len(batches)):
        for part, words in ((slice(count), "first"), (slice(-count, None), "last")):
            some = averages(found.logits[part], batches[part])
            if any(near(value, some[name].loss, limits) for name in (MEAN, UNEQUAL[0])):
                return f"that of the {words} {count} of {len(batches)} batches alone"
    return None
