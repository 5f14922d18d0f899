"""Constants of a recipe that lie outside of what is usual, and what stands in their place in a sane one.

Their limits are the ladder's, of which `mlxstories.findings.limits` has those that are shared. A suspect is tried
against the run's own losses before it is believed, so one that a trial can tell may lie far below what judges; and one
that a trial accuses wrongly, above it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np

from mlxstories.findings import CATALOGUE
from mlxstories.findings.limits import (
    BLUNTS,
    CLIMBS,
    CLIPPED,
    FADES,
    OUT_OF_ORDER,
    OVERSTEPS,
    REMEMBERS,
    Limit,
)
from mlxstories.ladder.bench.step.adam import overstep
from mlxstories.training.phases import Phase
from mlxstories.trees import by_path

LIMITS = SimpleNamespace(
    fades=FADES,
    clipped=CLIPPED,
    oversteps=OVERSTEPS,
    # Every warmup loses a trial, which ends before it pays: only one that the run does not outlast is suspected.
    climbs=Limit(2 * CLIMBS.value, CLIMBS.unit),
    out_of_order=OUT_OF_ORDER,
    remembers=REMEMBERS,
    # The ladder's entry is a mean, most entries are far smaller, and a trial tells whether that matters.
    blunts=Limit(BLUNTS.value / 1000, BLUNTS.unit),
    smoothing=Limit(0.5, "of the target's probability, spread over the vocabulary"),
    scale=Limit(5.0, "times the scale of a fresh draw, or its inverse"),
)
_USUAL_CLIP = 1.0
_COUPLED_RATE = 0.1  # stands for the rate where Adam rescales what decay adds to the gradient


@dataclass(frozen=True)
class Suspect:
    """A field of the phase, whether it is guilty is for a trial to say.

    Attributes:
        code: of the catalogue.
        message: one clause.
        changes: fields by dotted path and their sane values.
    """

    code: str
    message: str
    changes: dict[str, Any]


def suspects(phase: Phase, total: int, gradient_norm: float | None, parameters: int) -> list[Suspect]:
    """The suspects of a run of ``total`` updates, the most likely cause first.

    Args:
        gradient_norm: one that was measured early, before clipping, or None.
        parameters: numbers that are trained.
    """
    order = list(CATALOGUE)
    known = gradient_norm is not None and math.isfinite(gradient_norm)
    norm = gradient_norm if known else None
    found = [
        *_of_schedule(phase, total),
        *_of_decay(phase),
        *_of_moments(phase, total),
        *_of_epsilon(phase, norm, parameters),
        *_of_step(phase, norm),
    ]
    return sorted(found, key=lambda suspect: order.index(suspect.code))


def _of_schedule(phase: Phase, total: int) -> Iterator[Suspect]:
    warmup = phase.schedule.warmup_steps(total)
    if phase.schedule.name != "constant" and not LIMITS.climbs.below(warmup / total):
        yield Suspect(
            "warmup-too-long",
            f"{warmup} updates of warmup outlast the {total} of the run",
            {"schedule.warmup": 0.05},
        )


def _of_decay(phase: Phase) -> Iterator[Suspect]:
    optimizer = phase.optimizer
    coupled = optimizer.name in ("adam", "sgd")
    if LIMITS.fades.above(optimizer.weight_decay * _decay_rate(phase)):
        # a decay of zero would need another layout of the optimiser's state
        yield Suspect(
            "weight-decay-too-large",
            f"a weight decay of {optimizer.weight_decay:g} outweighs the gradients",
            {"optimizer.weight_decay": 1e-4 if coupled else 0.01},
        )


def _decay_rate(phase: Phase) -> float:
    """What the coefficient of decay is multiplied by in an update at the peak rate."""
    optimizer = phase.optimizer
    if optimizer.name == "sgd":
        return optimizer.learning_rate / (1 - optimizer.momentum)
    return _COUPLED_RATE if optimizer.name == "adam" else optimizer.learning_rate


def _of_moments(phase: Phase, total: int) -> Iterator[Suspect]:
    optimizer = phase.optimizer
    beta1, beta2 = optimizer.betas
    largest = _largest_overstep(phase, total) if not optimizer.bias_correction else 0.0
    if LIMITS.oversteps.above(largest):
        yield Suspect(
            "no-bias-correction",
            f"without bias correction updates are up to {largest:.0f} times too large",
            {"optimizer.bias_correction": True, "optimizer.betas": (0.9, 0.999)},
        )
    elif optimizer.name != "sgd" and (
        LIMITS.remembers.above(beta1) or LIMITS.out_of_order.above(beta1**2 / max(math.sqrt(beta2), 1e-30))
    ):
        yield Suspect(
            "extreme-constants",
            f"betas are {beta1:g} and {beta2:g}",
            {"optimizer.betas": (0.9, 0.99 if optimizer.name == "lion" else 0.999)},
        )
    if optimizer.name in ("muon", "sgd") and LIMITS.remembers.above(optimizer.momentum):
        yield Suspect(
            "extreme-constants", f"momentum is {optimizer.momentum:g}", {"optimizer.momentum": 0.95}
        )


def _largest_overstep(phase: Phase, total: int) -> float:
    """The largest update of an uncorrected Adam over the peak rate, warmup included."""
    updates = np.arange(1, total + 1)
    warmup = phase.schedule.warmup_steps(total) if phase.schedule.name != "constant" else 0
    climbing = np.minimum(updates / max(1, warmup), 1)
    return float((overstep(*phase.optimizer.betas, updates) * climbing).max())


def _of_epsilon(phase: Phase, gradient_norm: float | None, parameters: int) -> Iterator[Suspect]:
    optimizer = phase.optimizer
    if not gradient_norm or optimizer.name not in ("adamw", "adam", "nadamw", "muon"):
        return
    entry = gradient_norm / math.sqrt(parameters)
    if LIMITS.blunts.above(optimizer.eps / entry):
        yield Suspect(
            "extreme-constants",
            f"eps is {optimizer.eps:g} where the gradient's entries are about {entry:.1g}",
            {"optimizer.eps": 1e-8},
        )


def _of_step(phase: Phase, gradient_norm: float | None) -> Iterator[Suspect]:
    if LIMITS.smoothing.above(phase.label_smoothing):
        yield Suspect(
            "extreme-constants",
            f"label smoothing is {phase.label_smoothing:g}",
            {"label_smoothing": 0.0},
        )
    clip = phase.clip_norm
    if gradient_norm and clip is not None and clip < _USUAL_CLIP:
        share = clip / gradient_norm
        if LIMITS.clipped.below(share):
            yield Suspect(
                "clipping-too-tight",
                f"clipping leaves {share:.2g} of the gradient",
                {"clip_norm": _USUAL_CLIP},
            )


def bad_start(weights: Any, fresh: Any) -> Suspect | None:
    """Whether a weight matrix starts at quite another scale than in a fresh draw (two trees of parameters)."""
    drawn = by_path(fresh)
    for name, own in by_path(weights).items():
        usual, actual = (float(mx.linalg.norm(array)) for array in (drawn[name], own))
        if usual > 0 and not 1 / LIMITS.scale.value < actual / usual < LIMITS.scale.value:
            return Suspect(
                "bad-initialization",
                f"{name} starts at {actual / usual:.2g} times its usual scale",
                {},
            )
    return None
