"""Adam's bias correction, where a subject's optimiser lacks it."""

from __future__ import annotations

from mlxstories.ladder.bench.bench import Bench, measurement


@measurement
def uncorrected_betas(bench: Bench) -> tuple[float, float] | None:  # TRANSITIONAL
    """The betas of an Adam that does not correct its bias."""
    return bench.facts.get("no_bias_correction")


def correction(b1: float, b2: float):
    """A transform that gives Adam's updates the bias correction that they lack."""

    def corrected(before, after, step):
        t = step + 1
        factor = (1 - b2**t) ** 0.5 / (1 - b1**t)
        return {n: before[n] + factor * (after[n] - before[n]) for n in after}

    return corrected
