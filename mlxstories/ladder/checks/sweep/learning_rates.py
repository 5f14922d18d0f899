"""Learning rates around the subject's own."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.training.memorising import memorising
from mlxstories.ladder.bench.training.rates import RateSweep, rate_sweep
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import ANY, check
from mlxstories.ladder.verdict import Verdict, failed, passed


@check("learning rates", rung="sweep", unless=ANY)
def learning_rates(bench: Bench, limits: Gauges) -> Verdict:
    """Trains on the few stories at other multiples of the learning rate, for fewer steps, and shows what each reaches.

    Where the stories were memorised this is for the eye: a best rate far from one's own is worth a try. Where they
    were not, the checks that follow name what stands in the way.

    Example: `AdamW(1e-5)` for a small model: at its own rate nothing is memorised, at 100 times that all of it.

    Fix: see those checks.
    """
    sweep, peak = rate_sweep(bench), bench.schedule.peak
    best, rate = sweep.best, f"{peak:g}" if peak else "its own"
    detail = (
        f"best at {best:g} times {rate}: {sweep.by_scale[best][1]:.1%} in {sweep.steps} steps, "
        f"at 1: {sweep.by_scale[1.0][1]:.1%}"
    )
    learned = memorising(bench).learned
    return (passed if learned else failed)(detail, sweep=_figure(sweep, peak))


def _figure(sweep: RateSweep, peak: float) -> list[dict]:
    return [
        {
            "scale": scale,
            "rate": peak * scale if peak else None,
            "loss": loss,
            "accuracy": accuracy,
            "steps": sweep.steps,
        }
        for scale, (loss, accuracy) in sorted(sweep.by_scale.items())
    ]
