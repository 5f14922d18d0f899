"""Whether Adam's first updates have the size that its learning rate says."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.adam import oversteps, uncorrected, uncorrected_betas
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, warning


@check(
    "bias correction",
    rung="minimal",
    causes=("no-bias-correction",),
    unless=("not-finite", "no-update"),
    overstep=Limit(10.0, "times the learning rate"),  # betas 0.9 and 0.999 reach 6.6
)
def bias_correction(bench: Bench, limits: Gauges) -> Verdict:
    """Computes from Adam's betas how far its first updates overstep the learning rate.

    MLX's Adam and AdamW leave the bias correction out by default. Their first hundreds of updates are then several
    times larger than the learning rate, and by a factor that depends on the betas.

    Example: `optim.AdamW(1e-3)`.

    Fix: `optim.AdamW(1e-3, bias_correction=True)`.
    """
    betas = uncorrected_betas(bench)
    if betas is None:
        return passed()
    largest = float(oversteps(*betas).max())
    detail = f"updates of {largest:.1f} times the learning rate"
    if limits.overstep.above(largest):
        return failed(detail, _draft(error, bench, betas))
    return passed(detail, _draft(warning, bench, betas))


def _draft(severity, bench: Bench, betas: tuple[float, float]) -> Draft:
    factors = oversteps(*betas)
    worst = int(factors.argmax())
    return severity(
        "no-bias-correction",
        f"Adam runs without bias correction (MLX's default): its first update is {factors[0]:.2f} times the "
        f"learning rate, that of step {worst + 1} {factors[worst]:.1f} times, and comparisons with other betas are "
        "unfair",
        fix=f"pass bias_correction=True to {type(uncorrected(bench.optimizer())).__name__}",
        where="optimizer",
        first_step_factor=float(factors[0]),
        largest_factor=float(factors[worst]),
        betas=list(betas),
    )
