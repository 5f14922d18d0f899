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
    rate = f"{peak:g}" if peak else "its own"
    (best, known), (own, known_there) = (sweep.by_scale[scale] for scale in (sweep.best, 1.0))
    detail = (
        f"best after {sweep.steps} steps at {sweep.best:g} times {rate}: {best:.2f} nats, {known:.1%} of the tokens; "
        f"at 1: {own:.2f} nats, {known_there:.1%}"
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
