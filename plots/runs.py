"""What the figures need of a run, read from its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlxstories.errors import StoriesError, one_line
from mlxstories.runs.directory import Run

_POSITION = ("step", "epoch", "tokens")
_TRAIN = (*_POSITION, "loss", "accuracy", "learning_rate", "grad_norm")
_VAL = (*_POSITION, "loss", "accuracy")
_BITS = "bits_per_character"


@dataclass(frozen=True)
class Curves:
    """The measurements of one run.

    Attributes:
        label: the run's name, told apart from other runs of the figure.
        facts: seed, tokens, updates and parameters, in words.
        train: float64 [N] each: step (updates), epoch, tokens, loss (nats per token), accuracy (share),
            learning_rate, grad_norm.
        val: float64 [M] each: step, epoch, tokens, loss, accuracy; unsmoothed; bits_per_character, NaN if unknown.
        blocks: float64 [N] gradient norm for each part of the model.
        repairs: of the run that was repaired: step, epoch, tokens and code of each.
        cooldowns: one that began early, or none: step, epoch, tokens, whose weights it began with, and its updates.
        floor: entropy floor, nats per token, or None.
        ceiling: best reachable accuracy (share), or None.
    """

    label: str
    facts: str
    train: dict[str, np.ndarray]
    val: dict[str, np.ndarray]
    blocks: dict[str, np.ndarray]
    repairs: list[dict[str, Any]]
    cooldowns: list[dict[str, Any]]
    floor: float | None
    ceiling: float | None


def read_curves(runs: Sequence[Run]) -> list[Curves]:
    """The curves of several runs.

    Raises:
        StoriesError: a run without files, without measurements, or with a line that is not one.
    """
    return [_read(run, label) for run, label in zip(runs, labels(runs), strict=True)]


def labels(runs: Sequence[Run]) -> list[str]:
    """The names of runs, and the paths of those that share one, with what cannot be printed made visible."""
    names = [run.path.resolve().name for run in runs]
    told = [name if names.count(name) == 1 else str(run.path) for name, run in zip(names, runs, strict=True)]
    return [one_line(label) for label in told]


def _read(run: Run, label: str) -> Curves:
    config, records = run.config, run.metrics()
    where = run.path / "metrics.jsonl"
    train, val, repairs, cooldowns = (
        [record for record in records if record["split"] == split]
        for split in ("train", "val", "repair", "cooldown")
    )
    if not train:
        raise StoriesError(
            f"run {run.path} has no measurements yet: wait for its first ones, or where it was stopped before them, "
            f"continue with: mlxstories train --resume {run.path}"
        )
    try:
        columns = {name: _column(train, name) for name in _TRAIN}
        floor = config.get("floor") or {}
        return Curves(
            label,
            _facts(config, columns),
            columns,
            {name: _column(val, name) for name in _VAL} | {_BITS: _column(val, _BITS, None)},
            _blocks(train),
            [{name: record[name] for name in (*_POSITION, "code")} for record in repairs],
            [{name: record[name] for name in (*_POSITION, "weights_of", "updates")} for record in cooldowns],
            _number(floor.get("nats")),
            _number(floor.get("accuracy")),
        )
    except KeyError as error:
        raise StoriesError(f"{where} has a line without {error}: the file is damaged.") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise StoriesError(f"{where} or config.json holds a value of the wrong type: {error}.") from error


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _blocks(train: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """The gradient norm of each part of the model, NaN in lines without it."""
    norms = [record.get("block_grad_norms", {}) for record in train]
    return {part: _column(norms, part, None) for part in sorted(set().union(*norms))}


def _column(records: list[dict[str, Any]], name: str, *default: Any) -> np.ndarray:
    values = [record.get(name, *default) if default else record[name] for record in records]
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _facts(config: dict[str, Any], train: dict[str, np.ndarray]) -> str:
    facts = [f"seed {config.get('seed', '?')}"]
    facts += [f"{short(train['tokens'][-1])} tokens", f"{train['step'][-1]:,.0f} updates"]
    if config.get("parameters"):
        facts.append(f"{short(config['parameters'])} parameters")
    return ", ".join(facts)


def short(count: float) -> str:
    """A count in three digits: 950, 12.3 K, 4.18 M."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " K")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return f"{count:.0f}"
