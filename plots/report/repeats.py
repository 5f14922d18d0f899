"""Several runs side by side: those that differ in their seed alone are one arm, and arms have intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlxstories.comparison.statistics import Difference, Estimate, estimate, paired, together
from mlxstories.plots.report.summary import RunSummary
from mlxstories.storage.serialize import dotted

# What a run's configuration says that is no choice, or the seed; parts of the model stand with the model too.
_NOT_RECIPE = ("name", "seed", "command", "versions", "parameters", "floor", "fingerprint", "format",
               "training.seed", "phase.name", "phase.qk_norm", "phase.mixing", "phase.feed_forward")  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """Runs of one recipe, one for each seed.

    Attributes:
        differs: fields of the configuration in which it differs from the first arm: (here, there).
        comparable: it was evaluated on the held-out stories of the first arm.
        difference: in loss from the first arm, paired by seed; None for itself, for other stories, and where
            no seed is shared.
    """

    name: str
    summaries: list[RunSummary]
    loss: Estimate
    accuracy: Estimate
    differs: dict[str, tuple[Any, Any]]
    comparable: bool
    difference: Difference | None = None

    @property
    def of_ceiling(self) -> float | None:
        ceiling = self.summaries[0].scores.ceiling
        return None if not ceiling else self.accuracy.mean / ceiling

    @property
    def seeds(self) -> list[int]:
        return [summary.config.get("seed") for summary in self.summaries]


def arms(summaries: Sequence[RunSummary]) -> list[Arm]:
    """Group measured runs by recipe, in their order; the first arm is the reference."""
    groups: dict[str, list[RunSummary]] = {}
    for summary in summaries:
        if summary.scores is not None:
            groups.setdefault(repr(sorted(recipe(summary.config).items())), []).append(summary)
    found = [_arm(group, next(iter(groups.values()))) for group in groups.values()]
    pairs = [(index, _paired(arm, found[0])) for index, arm in enumerate(found) if index and arm.comparable]
    differences = [(index, difference) for index, difference in pairs if difference is not None]
    held = together([difference for _, difference in differences]) if differences else []
    verdicts = dict(zip([index for index, _ in differences], held, strict=True))
    return [Arm(**{**arm.__dict__, "difference": verdicts.get(index)}) for index, arm in enumerate(found)]


def _arm(group: list[RunSummary], reference: list[RunSummary]) -> Arm:
    here, there = recipe(group[0].config), recipe(reference[0].config)
    label = group[0].label if len(group) == 1 else f"{group[0].label} and {len(group) - 1} more"
    return Arm(
        label,
        group,
        estimate([summary.scores.loss for summary in group]),
        estimate([summary.scores.accuracy for summary in group]),
        {k: (here.get(k), there.get(k)) for k in {**there, **here} if here.get(k) != there.get(k)},
        _stories(group[0]) == _stories(reference[0]),
    )


def _paired(arm: Arm, reference: Arm) -> Difference | None:
    mine, theirs = (
        {summary.config.get("seed"): summary.scores.loss for summary in one.summaries}
        for one in (arm, reference)
    )
    shared = sorted(mine.keys() & theirs.keys())
    if not shared:
        return None
    return paired([mine[s] for s in shared], [theirs[s] for s in shared], lower_is_better=True)


def recipe(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration as dotted fields and their values, the seed and what follows from others left out."""
    kept = {name: value for name, value in config.items() if name not in _NOT_RECIPE}
    return {path: value for path, value in dotted(kept) if path not in _NOT_RECIPE}


def _stories(summary: RunSummary) -> tuple:
    """What two runs must share for their losses to mean the same: held-out stories, tokens and what is predicted."""
    config = summary.config
    data, model = config.get("data") or {}, config.get("model") or {}
    held_out = (
        {name: value for name, value in data.items() if name != "stories"}
        if data.get("source") == "stories"
        else config.get("fingerprint")
    )
    return held_out, model.get("arch"), model.get("vocab_size")
