"""Trainings of this package as subjects: the ladder examines the very update that they make."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.optimizers import Optimizer

from mlxstories.batch import Batch, batch_of
from mlxstories.data.dataset import Dataset
from mlxstories.data.packing import pack
from mlxstories.errors import StoriesError
from mlxstories.ladder.climb import check_before_training
from mlxstories.ladder.diagnosis import Diagnosis
from mlxstories.ladder.subject import Subject
from mlxstories.model import MlxLmConfig, ModelConfig, build_model
from mlxstories.optim import build_optimizer, build_schedule
from mlxstories.runs.directory import Run
from mlxstories.training.config import TrainingConfig
from mlxstories.training.experiment import recipe_of
from mlxstories.training.losses import objective
from mlxstories.training.phases import Phase
from mlxstories.training.step import TrainStep
from mlxstories.training.stream import Stream
from mlxstories.training.trainer import Trainer

UPDATES = 1000  # of a run whose length is not known


def scheduled_optimizer(phase: Phase, updates: int) -> Optimizer:
    """The phase's optimiser on its schedule."""
    rate = build_schedule(phase.schedule, phase.optimizer.learning_rate, updates)
    return build_optimizer(phase.optimizer, rate)


class Update:
    """`TrainStep` as the ladder calls it: (model, optimizer, batch) to the mean nats of the batch's real tokens.

    Args:
        objective: as `mlxstories.training.losses.objective` returns it.
        phase: smoothing, clipping and accumulation; the rows of a batch are shared among the microbatches.
        dtype: of the forward and backward passes.
    """

    def __init__(self, objective: Callable, phase: Phase, dtype: mx.Dtype = mx.float32):
        self._objective, self._phase, self._dtype = objective, phase, dtype
        self._made: tuple[Any, Any, TrainStep] | None = None
        self._calls = 0

    def __call__(self, model: nn.Module, optimizer: Optimizer, batch: Batch) -> mx.array:
        step = self._step(model, optimizer)
        self._calls += 1
        result = step(self._microbatches(batch), self._calls)
        return result.nats / mx.maximum(result.tokens, 1)

    def _step(self, model: nn.Module, optimizer: Optimizer) -> TrainStep:
        # one is enough: the ladder trains one model at a time, and a step holds its model and all its moments
        if self._made is None or self._made[0] is not model or self._made[1] is not optimizer:
            step = TrainStep(
                model,
                optimizer,
                self._objective,
                label_smoothing=self._phase.label_smoothing,
                clip_norm=self._phase.clip_norm,
                dtype=self._dtype,
            )
            self._made = model, optimizer, step
        return self._made[2]

    def _microbatches(self, batch: Batch) -> list[Batch]:
        rows, parts = len(batch.inputs), self._phase.accumulation
        if rows % parts:
            return [batch]
        return [Batch(*part) for part in zip(*(mx.split(array, parts) for array in batch), strict=True)]


def mean_objective(objective: Callable, phase: Phase) -> Callable[[nn.Module, Batch], mx.array]:
    """What an update minimises, per real token: (model, batch) to nats, smoothed where the phase smooths."""

    def loss(model: nn.Module, batch: Batch) -> mx.array:
        minimised, tokens, _, _ = objective(model, batch, mx.random.key(0), phase.label_smoothing)
        return minimised / mx.maximum(tokens, 1)

    return loss


def subject_of(run: Run) -> Subject:
    """What a run trains, for the ladder to examine: its shape with random weights, its stories, and its update,
    with accumulation, smoothing, clipping and precision.

    Raises:
        StoriesError: it is an encoder, was imported without a recipe, is damaged, or its data has changed.
    """
    return _training(run, *recipe_of(run))


def subject_of_trainer(trainer: Trainer) -> Subject:
    """The subject of a training before its first update, the same that its run will give.

    Raises:
        StoriesError: it is an encoder.
    """
    return _training(trainer.run, trainer.model.config, trainer.phase, trainer.dataset, trainer.config)


def _training(
    run: Run, shape: ModelConfig | MlxLmConfig, phase: Phase, dataset: Dataset, training: TrainingConfig
) -> Subject:
    if shape.arch == "encoder":
        raise StoriesError(f"{run.path} is an encoder, and the ladder examines next-token training.")
    minimised = objective(shape)
    return dataclasses.replace(
        _examined(run.path.name, shape, dataset, training, phase.accumulation),
        loss=mean_objective(minimised, phase),
        optimizer=lambda: scheduled_optimizer(phase, training.steps or UPDATES),
        train_step=Update(minimised, phase, getattr(mx, training.dtype)),
        train_texts=dataset.train_texts,
        val_texts=dataset.val_texts,
        updates=training.steps or UPDATES,
    )


def check(trainer: Trainer) -> Diagnosis | None:
    """The ladder's cheap checks of what is about to be trained; its findings go into the run directory.

    None for an encoder, which sees both sides by design: the checks are those of next-token training. The texts are
    left out, because loading has split them without a duplicate already.
    """
    if trainer.model.config.arch == "encoder":
        return None
    examined = _examined(trainer.run.path.name, trainer.model.config, trainer.dataset, trainer.config)
    diagnosis = check_before_training(examined, seed=trainer.config.seed)
    if diagnosis.findings:
        trainer.run.add_findings(diagnosis.findings)
    return diagnosis


def _examined(
    name: str,
    model: ModelConfig | MlxLmConfig,
    dataset: Dataset,
    config: TrainingConfig,
    accumulation: int = 1,
) -> Subject:
    def train_batches(seed: int) -> Iterator[Batch]:
        stream = Stream(dataset.train, model.context, dataclasses.replace(config, seed=seed))
        while stream.epoch == 0:
            parts = [next(stream) for _ in range(accumulation)]
            yield Batch(*(mx.concatenate(list(arrays)) for arrays in zip(*parts, strict=True)))

    def val_batches() -> Iterator[Batch]:
        rows = pack(dataset.val, model.context, layout=config.layout)
        for index in range(math.ceil(len(rows.inputs) / config.batch_size)):
            yield batch_of(rows, index, config.batch_size)

    return Subject(
        name=name,
        model=lambda: build_model(model),
        vocab_size=model.vocab_size,
        train_batches=train_batches,
        val_batches=val_batches,
        tokenizer=dataset.tokenizer,
        floor=dataset.floor.nats if dataset.floor else None,
    )
