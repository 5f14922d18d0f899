"""The training recipes, as values: what differs between them is in their fields alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlxstories.bounds import check_choice, check_flag, check_number
from mlxstories.errors import StoriesError
from mlxstories.model.config import CHOICES, check_mixing
from mlxstories.optim.build import OptimizerConfig
from mlxstories.optim.schedules import ScheduleConfig
from mlxstories.storage.serialize import dotted

LONGEST_NAME = 100  # characters, for it is shown in tables and figures
MOST_MICROBATCHES = 10_000  # of an update, which nothing interrupts


@dataclass(frozen=True)
class Phase:
    """A named training recipe.

    Attributes:
        name: how it is called in runs and figures.
        optimizer: the rule and its constants.
        schedule: the learning rate's shape.
        label_smoothing: share of the target's probability spread over the vocabulary, [0, 1). In training
            only; losses that are reported are never smoothed.
        accumulation: microbatches to an update, at most MOST_MICROBATCHES.
        clip_norm: highest global gradient norm, or None.
        qk_norm: normalise queries and keys (a part of the model that belongs to the recipe).
        mixing: tokens that each takes in before attention, itself included (likewise).
        feed_forward: the kind of feed-forward part (likewise).
    """

    name: str
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    label_smoothing: float = 0.0
    accumulation: int = 1
    clip_norm: float | None = 1.0
    qk_norm: bool = False
    mixing: int = 1
    feed_forward: str = "swiglu"

    def __post_init__(self):
        if not (isinstance(self.name, str) and self.name.isprintable() and len(self.name) <= LONGEST_NAME):
            raise StoriesError(
                f"name must be a text of at most {LONGEST_NAME} characters in one line; got {self.name!r}."
            )
        check_number("label_smoothing", self.label_smoothing, at_least=0, below=1)
        check_number("accumulation", self.accumulation, at_least=1, at_most=MOST_MICROBATCHES, whole=True)
        if self.clip_norm is not None:
            check_number("clip_norm", self.clip_norm, above=0)
        check_flag("qk_norm", self.qk_norm)
        check_mixing(self.mixing)
        check_choice("feed_forward", self.feed_forward, CHOICES["feed_forward"])

    def parts(self, arch: str = "decoder") -> dict[str, Any]:
        """The fields of `ModelConfig` that belong to the recipe; an encoder has no earlier tokens to mix in."""
        mixing = self.mixing if arch == "decoder" else 1
        return {"qk_norm": self.qk_norm, "mixing": mixing, "feed_forward": self.feed_forward}


PHASE_1 = Phase(
    "phase 1",
    OptimizerConfig("adamw", learning_rate=1e-3, betas=(0.9, 0.999), weight_decay=0.0),
    ScheduleConfig("warmup_linear", warmup=0.05),
)

PHASE_2 = dataclasses.replace(
    PHASE_1,
    name="phase 2",
    optimizer=dataclasses.replace(PHASE_1.optimizer, betas=(0.9, 0.98), weight_decay=0.01),
    schedule=ScheduleConfig("warmup_cosine", warmup=0.05),
    label_smoothing=0.1,
    accumulation=2,
)

PHASE_3 = Phase(
    "phase 3",
    OptimizerConfig("muon", learning_rate=0.02, betas=(0.9, 0.95), weight_decay=0.01),
    ScheduleConfig("wsd", warmup=0.02, cooldown=0.3),
    qk_norm=True,
)

PHASES = {1: PHASE_1, 2: PHASE_2, 3: PHASE_3}

SPEEDRUN = dataclasses.replace(
    PHASE_3,
    name="speedrun",
    optimizer=dataclasses.replace(PHASE_3.optimizer, rest_learning_rate=0.05, orthogonalizer="polar_express"),
    schedule=ScheduleConfig("wsd", warmup=0.02, cooldown=0.8),
    mixing=4,
    feed_forward="relu2",
)

RECORD: dict[str, Any] = {
    "phase": SPEEDRUN.name,
    "size": "small",
    "layers": 2,
    "stories": 10_000,
    "epochs": 1,
}
"""What reaches the built-in stories' ceiling in least time (docs/speedrun.md), by the names of options of ``train``."""


def override(phase: Phase, changes: Mapping[str, Any]) -> Phase:
    """``phase`` with the fields at dotted paths replaced, as in ``{"optimizer.learning_rate": 3e-4}``.

    Raises:
        StoriesError: a path that does not exist, or a value out of its range.
    """
    known = values(phase)
    nested: dict[str, dict[str, Any]] = {}
    for path, value in changes.items():
        if path not in known:
            raise StoriesError(f"a phase has no field {path!r}; its fields are {', '.join(known)}.")
        part, _, name = path.rpartition(".")
        nested.setdefault(part, {})[name] = value
    own = nested.pop("", {})
    parts = {part: dataclasses.replace(getattr(phase, part), **inner) for part, inner in nested.items()}
    return dataclasses.replace(phase, **own, **parts)


# Fields that some optimisers or schedules alone go by.
_HEEDED_BY = {
    "optimizer.betas": ("adamw", "adam", "nadamw", "lion", "muon"),
    "optimizer.eps": ("adamw", "adam", "nadamw", "muon"),
    "optimizer.momentum": ("muon", "sgd"),
    "schedule.warmup": ("linear_warmup", "warmup_linear", "warmup_cosine", "noam", "wsd"),
    "schedule.final": ("warmup_linear", "warmup_cosine", "wsd"),
    "schedule.cooldown": ("wsd",),
    "schedule.cooldown_shape": ("wsd",),
    "schedule.dim": ("noam",),
}


def refuse_fields_without_effect(phase: Phase, paths: Iterable[str]) -> None:
    """Raises StoriesError if one of the fields that were set has no effect on the phase that they are part of."""
    for path in paths:
        part, names = path.partition(".")[0], _HEEDED_BY.get(path)
        if names and (name := getattr(phase, part).name) not in names:
            raise StoriesError(
                f"{path} has no effect with the {part} {name}: leave it out, or take {' or '.join(names)}"
            )


def with_rate(phase: Phase, rate: float) -> dict[str, float]:
    """The changes that set the peak rate, to three digits; that of Muon's other parameters keeps its proportion."""
    rate = float(f"{rate:.3g}")
    changes = {"optimizer.learning_rate": rate}
    rest = phase.optimizer.rest_learning_rate
    if rest is not None:
        changes["optimizer.rest_learning_rate"] = rest * rate / phase.optimizer.learning_rate
    return changes


def differences(a: Phase, b: Phase) -> dict[str, tuple[Any, Any]]:
    """The dotted paths at which two phases differ, name apart, with the value of each."""
    left, right = values(a), values(b)
    return {path: (left[path], right[path]) for path in left if path != "name" and left[path] != right[path]}


def values(phase: Phase) -> dict[str, Any]:
    """Every field of a phase by its dotted path."""
    return dict(dotted(dataclasses.asdict(phase)))
