"""Whether Adam's first updates have the size that its learning rate says."""

from __future__ import annotations

import numpy as np

from mlxstories.findings.limits import OVERSTEPS
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.step.adam import (
    oversteps,
    uncorrected,
    uncorrected_betas,
    uncorrected_warmup,
)
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, warning


@check(
    "bias correction",
    rung="minimal",
    causes=("no-bias-correction",),
    unless=("not-finite", "no-update"),
    overstep=OVERSTEPS,
    slight=Limit(1.2, "times the learning rate"),
)
def bias_correction(bench: Bench, limits: Gauges) -> Verdict:
    """Computes from Adam's betas, and from the schedule over the run that the subject has, how far its updates
    overstep the schedule's peak.

    MLX's Adam and AdamW leave the bias correction out by default. Their first hundreds of updates are then several
    times larger than the learning rate, and by a factor that depends on the betas. A warmup that is long enough hides
    them.

    Example: `optim.AdamW(1e-3)`.

    Fix: `optim.AdamW(1e-3, bias_correction=True)`.
    """
    factors = oversteps(bench)
    if factors is None:
        return passed()
    largest = float(factors.max())
    detail = f"updates of {largest:.1f} times the learning rate"
    if limits.overstep.above(largest):
        return failed(detail, _draft(error, bench, factors))
    if not limits.slight.above(largest):
        return passed(detail)
    return passed(detail, _draft(warning, bench, factors))


def _draft(severity, bench: Bench, factors: np.ndarray) -> Draft:
    worst, warmup = int(factors.argmax()), uncorrected_warmup(bench)
    where = f" through a warmup of {warmup} updates" if warmup else ""
    return severity(
        "no-bias-correction",
        f"Adam runs without bias correction (MLX's default){where}: its first update is {factors[0]:.3g} times the "
        f"learning rate, that of step {worst + 1} {factors[worst]:.1f} times, and comparisons with other betas are "
        "unfair",
        fix=f"pass bias_correction=True to {type(uncorrected(bench.optimizer())).__name__}",
        where="optimizer",
        first_step_factor=float(factors[0]),
        largest_factor=float(factors[worst]),
        betas=list(uncorrected_betas(bench)),
        **({"warmup": warmup} if warmup else {}),
    )
