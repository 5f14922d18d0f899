"""What a report says of a run, read from its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mlxstories.errors import StoriesError
from mlxstories.findings import CATALOGUE, ERROR, WARNING, Finding, fold
from mlxstories.findings.finding import SEVERITIES
from mlxstories.plots.runs import Curves, labels, read_curves
from mlxstories.runs.directory import Run
from mlxstories.storage.serialize import from_dict, read_json


@dataclass(frozen=True)
class Scores:
    """Held-out figures: loss (nats per token) and accuracy (share) beside the source's own, None where unknown;
    ``bits`` are those of the loss for each character."""

    loss: float
    accuracy: float
    floor: float | None = None
    ceiling: float | None = None
    tokens: int | None = None
    bits: float | None = None

    def __post_init__(self):
        for name, value in asdict(self).items():
            if value is not None and not isinstance(value, int | float):
                raise TypeError(f"{name} is {value!r}")

    @property
    def above_floor(self) -> float | None:
        """How far the loss is above the floor, as a share of it."""
        return None if not self.floor else self.loss / self.floor - 1

    @property
    def of_ceiling(self) -> float | None:
        """The accuracy as a share of the best reachable one."""
        return None if not self.ceiling else self.accuracy / self.ceiling


@dataclass(frozen=True)
class RunSummary:
    """A run as its files tell it.

    Attributes:
        label: its name, told apart from other runs of the report.
        config: ``config.json``.
        curves: None before the first training measurement.
        scores: the last held-out figures, None before the first.
        by_kind: the same for each kind of token, known when training has ended on built-in stories.
        first: loss before the first update, None before it is measured.
        best: update and loss of the best validation.
        findings: the most likely cause first, its consequences folded under it.
        step, total: updates done and planned; the plan is None before the first measurement.
        seconds: spent on training, known when it has ended.
        baselines: loss of what only counts tokens (frequencies, pairs), where no floor is known; else empty.
    """

    run: Run
    label: str
    config: dict[str, Any]
    curves: Curves | None
    scores: Scores | None
    by_kind: dict[str, Scores]
    first: float | None
    best: tuple[int, float] | None
    findings: list[Finding]
    step: int
    total: int | None
    tokens: int
    seconds: float | None
    baselines: dict[str, float]

    @property
    def finished(self) -> bool:
        return self.seconds is not None

    @property
    def errors(self) -> list[Finding]:
        """Those that training did not repair."""
        return [f for f in self.findings if f.severity == ERROR and f not in self.repaired]

    @property
    def repaired(self) -> list[Finding]:
        """The errors from which training went back and on with a changed recipe."""
        codes = {repair["code"] for repair in self.curves.repairs} if self.curves else set()
        return [f for f in self.findings if f.severity == ERROR and f.code in codes]

    @property
    def warnings(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == WARNING]


def read_summaries(runs: Sequence[Run]) -> list[RunSummary]:
    """The summaries of several runs, measured or just begun.

    Raises:
        StoriesError: a file is missing or damaged.
    """
    return [_read(run, label) for run, label in zip(runs, labels(runs), strict=True)]


def _read(run: Run, label: str) -> RunSummary:
    config, records = run.config, run.metrics()
    begun = any(record["split"] == "train" for record in records)
    curves = None
    if begun:
        (curves,) = read_curves([run])
    path = run.file("result.json")
    result = read_json(path) if path.is_file() else None
    validations = [r for r in records if r["split"] == "val"]
    try:
        best = min(validations, key=lambda r: (r["loss"] is None, r["loss"]), default=None)
        return RunSummary(
            run,
            label,
            config,
            curves,
            _scores(config, result, validations),
            {name: Scores(**row) for name, row in result["by_kind"].items()} if result else {},
            float(validations[0]["loss"]) if validations and validations[0]["step"] == 0 else None,
            best and (best["step"], float(best["loss"])),
            _findings(run),
            *_progress(config, curves, result),
            {name: float(loss) for name, loss in ((result or {}).get("baselines") or {}).items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StoriesError(
            f"a file of {run.path} holds an unexpected value ({error!r}): it is damaged."
        ) from error


def _progress(config: dict, curves: Curves | None, result: dict | None) -> tuple:
    """Updates done and planned, tokens trained on, seconds."""
    if result is not None:
        return result["steps"], result["steps"], result["trained_tokens"], float(result["seconds"])
    training = config.get("training") or {}
    if curves is None:
        return 0, training.get("steps"), 0, None
    step, epoch = curves.train["step"][-1], curves.train["epoch"][-1]
    if curves.cooldowns:
        cooldown = curves.cooldowns[-1]
        return int(step), cooldown["step"] + cooldown["updates"], int(curves.train["tokens"][-1]), None
    planned = training.get("steps")
    if not planned and epoch and training.get("epochs"):
        planned = round(step / epoch * training["epochs"])
    return int(step), planned, int(curves.train["tokens"][-1]), None


def _scores(config: dict[str, Any], result: dict[str, Any] | None, validations: list[dict]) -> Scores | None:
    """Those of the result, else of the last validation."""
    last = result or (validations[-1] if validations else None)
    if last is None:
        return None
    floor = config.get("floor") or {}
    return Scores(
        float(last["loss"]),
        float(last["accuracy"]),
        floor=floor.get("nats"),
        ceiling=floor.get("accuracy"),
        tokens=last.get("tokens") if result else None,
        bits=last.get("bits_per_character"),
    )


def _findings(run: Run) -> list[Finding]:
    path = run.file("findings.json")
    if not path.is_file():
        return []
    items = read_json(path)
    if not isinstance(items, list):
        raise StoriesError(f"{path} is not a list of findings: the file is damaged.")
    found = [from_dict(Finding, item, str(path)) for item in items]
    for finding in found:
        if finding.code not in CATALOGUE or finding.severity not in SEVERITIES:
            raise StoriesError(
                f"{path} names {finding.code!r} as {finding.severity!r}, which no check of mlxstories finds."
            )
    return fold(found)[0]
