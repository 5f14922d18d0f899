"""What the checks share that explain why a few stories were not memorised."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.training.memorising import memorising, row_entropy, row_share
from mlxstories.ladder.bench.training.rates import RateSweep, longer_run, rate_sweep
from mlxstories.ladder.limits import Gauges, Limit

RATE_LIMITS = {
    "gain": Limit(0.12, "of the first loss, by the best rate"),
    "times": Limit(2.0, "times the gain of the own rate"),
    "more": Limit(0.1, "of the first loss, more than by the own rate"),
    "hits": Limit(0.4, "accuracy above the own rate's, by a smaller one"),
    "below_words": Limit(0.05, "of the first loss, below word frequencies"),
    "far_below_words": Limit(0.2, "of the first loss, below word frequencies, in the longer run"),
    "above_words": Limit(0.3, "accuracy above the commonest word's, in the longer run"),
}
"""For checks that ask whether another learning rate would do."""


@dataclass(frozen=True)
class Rates:
    """What other rates do for a setup that did not memorise.

    Attributes:
        by_scale: multiple of the own rate to (loss, accuracy).
        best: the multiple that is judged.
        steps: of the runs compared.
        raise_helps: a larger rate does far better, and more than word frequencies would.
        lower_helps: a smaller one does far better.
        evidence: of it all.
    """

    by_scale: dict[float, tuple[float, float]]
    best: float
    steps: int
    raise_helps: bool
    lower_helps: bool
    evidence: dict[str, Any]


def judge_rates(bench: Bench, limits: Gauges) -> Rates:
    """Compare the rates of the sweep; ``limits`` has `RATE_LIMITS`."""
    sweep = rate_sweep(bench)
    best, evidence = sweep.best, sweep_evidence(bench)
    if not _far_better(sweep, limits):
        return Rates(sweep.by_scale, best, sweep.steps, False, False, evidence)
    if best < 1:
        return Rates(sweep.by_scale, best, sweep.steps, False, True, evidence)
    # A rate that teaches word frequencies alone is no cure.
    bound = row_entropy(bench)
    if limits.below_words.above((bound - sweep.by_scale[best][0]) / sweep.start):
        return Rates(sweep.by_scale, best, sweep.steps, True, False, evidence)
    return _slow_and_a_little_too_bold(bench, limits, sweep, evidence)


def _far_better(sweep: RateSweep, limits: Gauges) -> bool:
    own, top, start = sweep.gain(1.0), sweep.gain(sweep.best), sweep.start
    if sweep.best == 1 or not limits.gain.above(top / start):
        return False
    # Word frequencies are most of what too large a rate gains, and teach next to no token.
    more_hits = sweep.by_scale[sweep.best][1] - sweep.by_scale[1.0][1]
    if sweep.best < 1 and limits.hits.above(more_hits):
        return True
    return (own <= 0 or limits.times.above(top / own)) and limits.more.above((top - own) / start)


def _slow_and_a_little_too_bold(bench: Bench, limits: Gauges, sweep: RateSweep, evidence: dict) -> Rates:
    """Whether a third of the best rate does it, for as long as memorising took."""
    best, (loss, accuracy) = longer_run(bench)
    minimal = memorising(bench).trial
    steps = len(minimal.losses)
    below = limits.far_below_words.above((row_entropy(bench) - loss) / sweep.start)
    cures = best > 1 and (below or limits.above_words.above(accuracy - row_share(bench)))
    by_scale = {**sweep.by_scale, 1.0: minimal.points[-1][1:], best: (loss, accuracy)}
    longer = {"steps": steps, "loss_of_longer_run": loss, "accuracy_of_longer_run": accuracy}
    return Rates(by_scale, best, steps, cures, False, {**evidence, **longer})


def sweep_evidence(bench: Bench) -> dict[str, Any]:
    """The sweep in numbers, for findings."""
    sweep = rate_sweep(bench)
    rows = sorted(sweep.by_scale.items())
    return {
        "learning_rate": bench.schedule.peak,
        "steps": sweep.steps,
        "loss_by_scale": {f"{scale:g}": loss for scale, (loss, _) in rows},
        "accuracy_by_scale": {f"{scale:g}": accuracy for scale, (_, accuracy) in rows},
        "start_loss": sweep.start,
        "unigram_loss_of_these_rows": row_entropy(bench),
    }


def without_steps(evidence: dict[str, Any]) -> dict[str, Any]:
    """Evidence for a run of another length than the sweep's."""
    return {key: value for key, value in evidence.items() if key != "steps"}


def rate_words(bench: Bench, rates: Rates) -> dict[str, str]:
    """The rate now and then, and what each reaches, in words; as accuracies, or losses where those are close."""
    reach, have = rates.by_scale[rates.best], rates.by_scale[1.0]
    peak = bench.schedule.peak
    close = math.isclose(reach[1], have[1], rel_tol=0, abs_tol=0.05)
    return {
        "now": f"learning rate {peak:g}" if peak else "the step's size",
        "then": f"{peak * rates.best:.2g}" if peak else f"{rates.best:g} times the step",
        "reach": f"{reach[0]:.2f} nats" if close else f"{reach[1]:.0%}",
        "have": f"{have[0]:.2f} nats" if close else f"{have[1]:.0%}",
    }
