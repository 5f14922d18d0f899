"""One training of a comparison, found again by what it was made of."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlxstories.comparison.arms import Arm
from mlxstories.data.dataset import DataConfig, Dataset, load_dataset
from mlxstories.data.tokenizer import END
from mlxstories.errors import StoriesError, listed
from mlxstories.generation.variety import text_statistics
from mlxstories.model import ModelConfig, size_config
from mlxstories.runs.directory import Run, write_json
from mlxstories.storage.lock import Busy
from mlxstories.storage.serialize import read_json, to_dict
from mlxstories.training import experiment
from mlxstories.training.config import TrainingConfig
from mlxstories.training.phases import MOST_MICROBATCHES
from mlxstories.training.progress import NotFinite
from mlxstories.training.stream import Stream

_TOLD = 16  # stories, for the measures of variety


@dataclass(frozen=True)
class Setting:
    """What is the same for all arms.

    Attributes:
        data: stories, split and tokenizer.
        size: named model size.
        epochs: times through the training stories, for the arm with the fewest microbatches an update.
        batch_size: rows of a microbatch.
        budget: "tokens" gives every arm the same microbatches, "updates" the same number of updates.
        model: fields of `ModelConfig` that all arms share.
    """

    data: DataConfig
    size: str
    epochs: int
    batch_size: int
    budget: str
    model: tuple[tuple[str, Any], ...] = ()

    def scaled(self, counts: Sequence[int]) -> list[Setting]:
        """This setting with each number of stories. All train on about as many tokens as the largest: fewer
        stories are repeated more often, so what differs is the data and not the length of the training."""
        return [
            replace(
                self, data=replace(self.data, stories=n), epochs=max(1, round(self.epochs * max(counts) / n))
            )
            for n in counts
        ]

    def shape(self, arm: Arm, dataset: Dataset) -> ModelConfig:
        given = {**dict(self.model), **arm.model}
        parts = {"separator": END, **arm.phase.parts(given.get("arch", "decoder")), **given}
        return size_config(self.size, dataset.tokenizer.vocab_size, **parts)

    def microbatches(self, accumulations: list[int]) -> int:
        """Microbatches that all accumulations divide: about ``epochs`` times through the stories."""
        dataset = load(self.data)
        config = TrainingConfig(batch_size=self.batch_size)
        context = size_config(self.size, dataset.tokenizer.vocab_size, **dict(self.model)).context
        once = math.lcm(*accumulations)
        if once > MOST_MICROBATCHES:
            raise StoriesError(
                f"the arms' accumulations have no common multiple up to {MOST_MICROBATCHES:,}: {listed(accumulations)}."
            )
        return max(1, self.epochs * Stream(dataset.train, context, config).length // once) * once


@dataclass(frozen=True)
class Cell:
    """An arm in a setting under one seed.

    Attributes:
        updates: that this arm makes.
    """

    arm: Arm
    setting: Setting
    seed: int
    updates: int

    def key(self) -> str:
        """Equal for equal trainings: hashes everything that can change the result."""
        dataset = load(self.setting.data)
        content = {
            "model": to_dict(self.setting.shape(self.arm, dataset)),
            "phase": self.arm.recipe(),
            "training": to_dict(self.training()),
            "data": dataset.fingerprint,
            "versions": [version(name) for name in ("mlxstories", "mlx")],
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]

    def training(self) -> TrainingConfig:
        return TrainingConfig(
            steps=self.updates,
            batch_size=self.setting.batch_size,
            seed=self.seed,
            evaluations=5,
        )


@lru_cache(maxsize=2)
def load(config: DataConfig) -> Dataset:
    return load_dataset(config)


def run(cell: Cell, store: Path) -> dict[str, Any]:
    """The cell's result: read if it is there, continued if it was interrupted, trained otherwise.

    A training that turns not finite has a loss of infinity and an accuracy of 0.
    """
    path = store / cell.key()
    done = path / "cell.json"
    if done.is_file():
        return read_json(done)
    trainer = _trainer(cell, path)
    try:
        evaluation = trainer.train()
    except NotFinite as error:
        reached = {"loss": math.inf, "accuracy": 0.0, "stopped": str(error)}
    else:
        if evaluation is None:
            raise KeyboardInterrupt
        experiment.finish(trainer, evaluation)
        reached = {"loss": evaluation.loss, "accuracy": evaluation.accuracy}
    if cell.arm.arch == "decoder":
        reached["bits_per_character"] = trainer.dataset.bits_per_character(reached["loss"])
    result = _measured(cell, trainer) | reached
    write_json(done, result)
    return result


def _trainer(cell: Cell, path: Path):
    if (path / "config.json").is_file():
        trained = Run(path)
        try:
            if trained.checkpoints():
                return experiment.resume(trained, _silent)
        except Busy:
            raise
        except StoriesError:
            pass  # damaged: train it again
    shutil.rmtree(path, ignore_errors=True)
    dataset = load(cell.setting.data)
    shape = cell.setting.shape(cell.arm, dataset)
    return experiment.start(path, dataset, shape, cell.arm.phase, cell.training(), _silent)


def _silent(record: dict) -> None:
    pass


def _measured(cell: Cell, trainer) -> dict[str, Any]:
    floor, progress = trainer.dataset.floor, trainer.progress
    result = {
        "seed": cell.seed,
        "tokens": progress.tokens,
        "updates": progress.step,
        "seconds": progress.seconds,
        "floor": floor and floor.nats,
        "ceiling": floor and floor.accuracy,
        "curve": [
            {name: record[name] for name in ("step", "tokens", "loss", "accuracy")}
            for record in trainer.run.metrics()
            if record["split"] == "val"
        ],
    }
    if trainer.model.config.arch == "decoder":
        told = experiment.tell(trainer.model, _TOLD, seed=cell.seed, end=trainer.dataset.tokenizer.end)
        result |= asdict(text_statistics([story.tokens for story in told]))
    return result
