"""Constants of a recipe that lie outside of what is usual, and what stands in their place in a sane one.

A suspect is tried against the run's own losses before it is believed, so its limits are wider than the ladder's, which
judge.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from mlxstories.findings import CATALOGUE
from mlxstories.training.phases import Phase

_TIGHT = 0.05  # share of the gradient's norm that a clip leaves
_FADES = 0.02  # of a weight, lost to decay in one update
_SMALLER = 5.0  # times, between the initial weights and those of a fresh model


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


def suspects(phase: Phase, total: int, gradient_norm: float | None) -> list[Suspect]:
    """The suspects of a run of ``total`` updates, the most likely cause first.

    ``gradient_norm`` is one that was measured early, before clipping, or None.
    """
    order = list(CATALOGUE)
    found = [*_of_schedule(phase, total), *_of_optimizer(phase), *_of_step(phase, gradient_norm)]
    return sorted(found, key=lambda suspect: order.index(suspect.code))


def _of_schedule(phase: Phase, total: int) -> Iterator[Suspect]:
    warmup = phase.schedule.warmup_steps(total)
    if phase.schedule.name != "constant" and warmup >= total:
        yield Suspect(
            "warmup-too-long",
            f"{warmup} updates of warmup outlast the {total} of the run",
            {"schedule.warmup": 0.05},
        )


def _of_optimizer(phase: Phase) -> Iterator[Suspect]:
    optimizer = phase.optimizer
    coupled = optimizer.name in ("adam", "sgd")
    fades = optimizer.weight_decay * (0.1 if coupled else optimizer.learning_rate)
    if fades > _FADES:
        # a decay of zero would need another layout of the optimiser's state
        yield Suspect(
            "weight-decay-too-large",
            f"a weight decay of {optimizer.weight_decay:g} outweighs the gradients",
            {"optimizer.weight_decay": 1e-4 if coupled else 0.01},
        )
    beta1, beta2 = optimizer.betas
    if not optimizer.bias_correction and (1 - beta1) > 5 * math.sqrt(1 - beta2):
        yield Suspect(
            "no-bias-correction",
            f"without bias correction the first update is {(1 - beta1) / math.sqrt(1 - beta2):.0f} times too large",
            {"optimizer.bias_correction": True, "optimizer.betas": (0.9, 0.999)},
        )
    elif optimizer.name not in ("sgd",) and (beta1 >= 0.99 or beta2 <= 0.5):
        yield Suspect(
            "extreme-constants",
            f"betas are {beta1:g} and {beta2:g}",
            {"optimizer.betas": (0.9, 0.99 if optimizer.name == "lion" else 0.999)},
        )
    if optimizer.name in ("adamw", "adam", "nadamw", "muon") and optimizer.eps > 1e-5:
        yield Suspect(
            "extreme-constants",
            f"eps is {optimizer.eps:g}, as large as the gradients",
            {"optimizer.eps": 1e-8},
        )
    if optimizer.name in ("muon", "sgd") and optimizer.momentum > 0.99:
        yield Suspect(
            "extreme-constants", f"momentum is {optimizer.momentum:g}", {"optimizer.momentum": 0.95}
        )


def _of_step(phase: Phase, gradient_norm: float | None) -> Iterator[Suspect]:
    if phase.label_smoothing > 0.5:
        yield Suspect(
            "extreme-constants",
            f"label smoothing is {phase.label_smoothing:g}",
            {"label_smoothing": 0.0},
        )
    clip = phase.clip_norm
    if gradient_norm is not None and clip is not None and clip < 1 and math.isfinite(gradient_norm):
        share = clip / gradient_norm
        if share < _TIGHT:
            yield Suspect(
                "clipping-too-tight",
                f"clipping leaves {share:.2g} of the gradient",
                {"clip_norm": 1.0},
            )


def bad_start(weights: Any, fresh: Any) -> Suspect | None:
    """Whether a weight matrix starts at quite another scale than in a fresh draw (two trees of parameters)."""
    for (name, mine), (_, other) in zip(tree_flatten(weights), tree_flatten(fresh), strict=True):
        usual, actual = (float(mx.linalg.norm(array)) for array in (other, mine))
        if usual > 0 and not usual / _SMALLER < actual < usual * _SMALLER:
            return Suspect(
                "bad-initialization",
                f"{name} starts at {actual / usual:.2g} times its usual scale",
                {},
            )
    return None
