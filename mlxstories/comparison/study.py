"""A study: arms x seeds in one or more settings, run once each and compared with the first arm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mlxstories.comparison import cells, workers
from mlxstories.comparison.arms import Arm, changed
from mlxstories.comparison.cells import Cell, Setting
from mlxstories.comparison.statistics import Difference, Estimate, estimate, paired, together
from mlxstories.errors import StoriesError, listed
from mlxstories.storage.files import writing
from mlxstories.training.phases import override, with_rate

BUDGETS = ("tokens", "updates")
_TUNING = (0.3, 1.0, 3.0)  # times each arm's own learning rate
_TUNING_SEED = 10_000  # none of the compared seeds


@dataclass(frozen=True)
class StudyConfig:
    """What to compare, and in how many settings.

    Attributes:
        arms: the first one is the reference.
        settings: each is a comparison of its own.
        seeds: of weights, order and dropout; the same for every arm.
        tune: choose each arm's learning rate first, among 0.3, 1 and 3 times its own, with one further seed.
    """

    arms: Sequence[Arm]
    settings: Sequence[Setting]
    seeds: Sequence[int]
    tune: bool = False

    def __post_init__(self):
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise StoriesError(f"two arms have the same name: {listed(names)}.")
        if len(names) < 2:
            raise StoriesError(f"a comparison needs at least 2 arms; got {listed(names)}.")


@dataclass
class Row:
    """An arm in a setting: its results by seed, and what they come to."""

    arm: Arm
    results: list[dict[str, Any]]
    differences: dict[str, Difference] = field(default_factory=dict)
    tuned: dict[float, float] | None = None

    def values(self, name: str) -> list[float]:
        return [result[name] for result in self.results]

    def estimate(self, name: str) -> Estimate | None:
        values = [result.get(name) for result in self.results]
        return None if None in values else estimate(values)


@dataclass
class Table:
    """All arms in one setting."""

    setting: Setting
    rows: list[Row]

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.arm.name == name)

    @property
    def floor(self) -> float | None:
        return self.rows[0].results[0]["floor"]

    @property
    def ceiling(self) -> float | None:
        return self.rows[0].results[0]["ceiling"]


@dataclass
class Study:
    """Runs a comparison; finished trainings in ``store`` are read, never repeated."""

    config: StudyConfig
    store: Path
    jobs: int = 1
    report: Callable[[Cell, dict, int, int], None] = lambda cell, result, done, total: None

    def check(self) -> None:
        """What `run` begins with.

        Raises:
            StoriesError: a model or a data set cannot be built, or ``store`` cannot be written.
        """
        for setting in self.config.settings:
            for arm in self.config.arms:
                setting.shape(arm, cells.load(setting.data))
        with writing(self.store):
            self.store.mkdir(parents=True, exist_ok=True)

    def run(self) -> list[Table]:
        """Train what is missing.

        Raises:
            StoriesError: as `check`; nothing is trained then.
        """
        self.check()
        return [self._table(setting) for setting in self.config.settings]

    def _table(self, setting: Setting) -> Table:
        arms, curves = list(self.config.arms), {}
        updates = _updates(setting, arms)
        if self.config.tune:
            arms, curves = self._tuned(setting, arms, updates)
        wanted = [Cell(arm, setting, s, updates[arm.name]) for arm in arms for s in self.config.seeds]
        results = dict(self._results(wanted))
        rows = [
            Row(arm, [results[arm.name, seed] for seed in self.config.seeds], tuned=curves.get(arm.name))
            for arm in arms
        ]
        return tabulate(setting, rows)

    def _tuned(self, setting: Setting, arms: list[Arm], updates: dict[str, int]):
        """Every arm with the best of three learning rates, and its loss at each."""
        candidates = {}
        for arm in arms:
            for scale in _TUNING:
                phase = override(arm.phase, with_rate(arm.phase, arm.phase.optimizer.learning_rate * scale))
                rate = phase.optimizer.learning_rate
                candidates[arm.name, rate] = replace(arm, name=f"{arm.name} at {rate:g}", phase=phase)
        wanted = [Cell(arm, setting, _TUNING_SEED, updates[name]) for (name, _), arm in candidates.items()]
        results = dict(self._results(wanted))
        best, curves = [], {}
        for arm in arms:
            losses = {
                rate: results[candidate.name, _TUNING_SEED]["loss"]
                for (name, rate), candidate in candidates.items()
                if name == arm.name
            }
            curves[arm.name] = losses
            rate = min(losses, key=losses.get)
            best.append(replace(arm, phase=candidates[arm.name, rate].phase))
        return best, curves

    def _results(self, wanted: list[Cell]) -> Iterator[tuple[tuple[str, int], dict]]:
        for done, (cell, result) in enumerate(workers.run_all(wanted, self.store, self.jobs), 1):
            self.report(cell, result, done, len(wanted))
            yield (cell.arm.name, cell.seed), result


def tabulate(setting: Setting, rows: list[Row]) -> Table:
    """The rows with each one's differences from the first, all verdicts of a measure held together."""
    others = [row for row in rows[1:] if comparable(row.arm, rows[0].arm)]
    for name, lower in (("loss", True), ("accuracy", False)):
        reference = rows[0].values(name)
        found = [paired(row.values(name), reference, lower_is_better=lower) for row in others]
        for row, difference in zip(others, together(found), strict=True):
            row.differences[name] = difference
    return Table(setting, rows)


def comparable(a: Arm, b: Arm) -> bool:
    """Whether two arms' losses mean the same: an encoder's is over masked tokens, a decoder's over next ones."""
    return a.arch == b.arch


def _updates(setting: Setting, arms: list[Arm]) -> dict[str, int]:
    accumulations = [arm.phase.accumulation for arm in arms]
    microbatches = setting.microbatches(accumulations)
    shared = microbatches // min(accumulations)
    by_tokens = setting.budget == "tokens"
    return {arm.name: microbatches // arm.phase.accumulation if by_tokens else shared for arm in arms}


def as_dict(tables: Sequence[Table]) -> dict[str, Any]:
    """Everything measured, JSON-ready."""
    return {
        "settings": [
            {
                "data": asdict(table.setting.data),
                "size": table.setting.size,
                "epochs": table.setting.epochs,
                "batch_size": table.setting.batch_size,
                "budget": table.setting.budget,
                "floor": table.floor,
                "ceiling": table.ceiling,
                "arms": [
                    {
                        "name": row.arm.name,
                        "differs": {
                            path: {"reference": a, "here": b}
                            for path, (a, b) in changed(table.rows[0].arm, row.arm).items()
                        },
                        "results": row.results,
                        "differences": {name: asdict(d) for name, d in row.differences.items()},
                        "tuned": row.tuned,
                    }
                    for row in table.rows
                ],
            }
            for table in tables
        ]
    }
