"""Whether what else validation reports goes with its loss: perplexities, and the targets among the k best."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.evaluation.averages import MEAN
from mlxstories.ladder.bench.evaluation.evaluation import Reported
from mlxstories.ladder.bench.loss.objective import log_softmax
from mlxstories.ladder.checks.trained.evaluation import CLOSE, NOISE, report, unsettled
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped, warning

_PERPLEXITY = re.compile(r"perplexity|ppl", re.I)
_TOP = re.compile(r"(?:top|acc|hits)\D{0,10}?(\d+)", re.I)


@check(
    "other figures of validation",
    rung="trained",
    causes=("metric-mismatch",),
    needs=("evaluate",),
    unless=("metric-mismatch", "stale-computation", "evaluation-changes-state"),
    close=CLOSE,
    noise=NOISE,
    apart=Limit(0.01, "of the figure"),
)
def figures(bench: Bench, limits: Gauges) -> Verdict:
    """Recomputes what ``evaluate`` reports under the names of perplexity (exp of the loss) and of top-k accuracy.

    A mean of perplexities, of tokens, rows or batches, is larger than the perplexity of all, as exp curves upwards. The
    one of tokens is ruled by the few that were least expected.

    Example: `sum(exp(loss) for loss in losses) / len(losses)`.

    Fix: exp of the mean loss, taken once.
    """
    found = report(bench, limits)
    if found is None:
        return skipped(unsettled(found, "figure"))
    for name, value, right in _recomputed(found):
        if limits.apart.above(abs(value - right) / max(abs(right), 1e-9)):
            perplexity = bool(_PERPLEXITY.search(name))
            of = _mean_of(found, value, limits) if perplexity else ""
            base = perplexity and not limits.apart.above(abs(value / right ** np.log(2) - 1))
            # Of words, bytes or documents it is another figure, and may be right; of tokens it never is.
            bad = of == "tokens" or base
            draft = (error if bad else warning)(
                "metric-mismatch",
                f"the validation reports {name} {value:.4g}, recomputed it is {right:.4g}"
                + (f": what is reported is the mean of the {of}' perplexities" if of else "")
                + (": what is reported is 2 to the power of a loss that is in nats" if base else ""),
                fix="take exp of the mean loss, once" if perplexity else "count each real token once",
                where="evaluate",
                reported=value,
                recomputed=right,
            )
            return failed(f"{name} differs", draft)
    return passed(", ".join(name for name, *_ in _recomputed(found)))


def _recomputed(found: Reported) -> Iterator[tuple[str, float, float]]:
    loss = found.averages[MEAN].loss
    for name, value in found.values.items():
        if _PERPLEXITY.search(name):
            yield name, value, float(np.exp(loss))
        elif top := _TOP.search(name):
            yield name, value, _among(found, int(top[1]))


def _mean_of(found: Reported, value: float, limits: Gauges) -> str:
    """Of which parts' perplexities the value is the mean; empty where of none."""
    nats, rows, batches = [], [], []
    for logits, batch in zip(found.logits, found.batches, strict=True):
        losses = -np.take_along_axis(log_softmax(logits, 1), batch.targets[..., None], -1)[..., 0]
        real = batch.mask > 0
        nats.append(losses[real])
        rows += [row[kept].mean() for row, kept in zip(losses, real, strict=True) if kept.any()]
        batches += [losses[real].mean()] if real.any() else []
    for of, parts in (("batches", batches), ("rows", rows), ("tokens", np.concatenate(nats))):
        if not limits.apart.above(abs(value / np.exp(parts).mean() - 1)):
            return of
    return ""


def _among(found: Reported, k: int) -> float:
    """Share of real targets among the k largest logits."""
    hits = total = 0
    for logits, batch in zip(found.logits, found.batches, strict=True):
        real = batch.mask > 0
        own = np.take_along_axis(logits, batch.targets[..., None], -1)
        hits += int(((logits > own).sum(-1) < k)[real].sum())
        total += int(real.sum())
    return hits / max(total, 1)
