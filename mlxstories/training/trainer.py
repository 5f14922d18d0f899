"""The training loop: batches, updates, validation, checkpoints, in that order, until the last update."""

from __future__ import annotations

import dataclasses
import json
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import mlx.core as mx
from mlx.optimizers import Optimizer

from mlxstories.data.dataset import Dataset
from mlxstories.distributed import ALONE, Group
from mlxstories.errors import StoriesError
from mlxstories.findings import Finding
from mlxstories.model import Transformer
from mlxstories.optim import build_optimizer, build_schedule
from mlxstories.runs import checkpoints
from mlxstories.runs.checkpoint_state import Checkpoint
from mlxstories.runs.directory import Run
from mlxstories.storage.serialize import from_dict
from mlxstories.training.config import TrainingConfig
from mlxstories.training.cooldown import Cooldown, early_cooldown
from mlxstories.training.evaluation import Evaluation, Evaluator
from mlxstories.training.losses import objective
from mlxstories.training.phases import Phase, override
from mlxstories.training.progress import Progress, Window
from mlxstories.training.step import TrainStep
from mlxstories.training.stopping import stop_signal
from mlxstories.training.stream import Stream
from mlxstories.training.watch import Watch


@dataclass
class Trainer:
    """A model in training.

    ``report`` receives every line of metrics as it is written, ``warn`` every finding that the curves show; an
    exception of theirs ends the training. The processes of ``group`` share the rows of every batch, and ``run`` is
    `Following` on all but the first. ``repairs`` are those of `mlxstories.repair`, the earliest first, as lines of
    metrics: among others the ``changes`` of the phase (path: [old, new]) and the microbatches ``skipped`` (epoch,
    number); ``phase`` is the recipe after them.
    """

    model: Transformer
    phase: Phase
    dataset: Dataset
    config: TrainingConfig
    run: Run
    report: Callable[[dict], None] = lambda record: None
    warn: Callable[[Finding], None] = lambda finding: None
    progress: Progress = field(default_factory=Progress)
    group: Group = ALONE
    repairs: list[dict] = field(default_factory=list)

    def __post_init__(self):
        share = {"rank": self.group.rank, "ranks": self.group.size}
        self.stream = Stream(self.dataset.train, self.model.config.context, self.config, **share)
        self.updates_per_epoch = math.ceil(self.stream.length / self.phase.accumulation)
        self.planned_steps = self.config.steps or self.config.epochs * self.updates_per_epoch
        at_least = math.ceil(self.planned_steps / self.config.evaluations)
        self.evaluate_every = min(self.updates_per_epoch, at_least)
        self.evaluator = Evaluator(self.model, self.group)
        self.recast(self.phase)

    @property
    def total_steps(self) -> int:
        """Updates of the run, fewer than planned where it cools down early."""
        return self.progress.cooldown.ends if self.progress.cooldown else self.planned_steps

    def recast(self, phase: Phase) -> None:
        """Take ``phase`` as the recipe from here on, with an optimiser that has seen nothing."""
        self.phase = phase
        self._build_optimizer()
        floor = self.dataset.floor and self.dataset.floor.nats
        self.watch = Watch(floor=floor, vocab_size=self.model.config.vocab_size)

    def _build_optimizer(self) -> None:
        """One that has seen nothing, with its schedule."""
        config, cooldown = self.phase.optimizer, self.progress.cooldown
        updates = cooldown.scheduled if cooldown else self.planned_steps
        self.learning_rate = build_schedule(self.phase.schedule, config.learning_rate, updates)
        self.optimizer: Optimizer = build_optimizer(config, self.learning_rate)
        self.optimizer.init(self.model.trainable_parameters())

    def new_step(self) -> TrainStep:
        """The compiled update of the recipe as it is now."""
        return TrainStep(
            self.model,
            self.optimizer,
            objective(self.model.config),
            label_smoothing=self.phase.label_smoothing,
            clip_norm=self.phase.clip_norm,
            group=self.group,
            dtype=getattr(mx, self.config.dtype),
        )

    def resume(self, checkpoint: Checkpoint | None) -> None:
        """Continue from a checkpoint: recipe, weights, optimiser state, data position and metrics as they were; or
        start again if there is none. Of several processes, rank 0 reads it for all, and weights and optimiser
        state reach the others when training begins."""
        progress, records, repairs = json.loads(self.group.first(lambda: self._rewind(checkpoint)))
        self.progress = from_dict(Progress, progress, "progress")
        if not self.group.leads:
            self._take(repairs)
        self.stream.seek(self.progress.epoch, self.progress.batch)
        try:
            for record in records:
                self._watch(record)
        except (KeyError, TypeError) as error:
            raise StoriesError(
                f"{self.run.path / 'metrics.jsonl'} is damaged: a line without {error}."
            ) from error

    def _rewind(self, checkpoint: Checkpoint | None) -> bytes:
        """Load a checkpoint and bring the run directory back to it; its position, metrics and repairs as JSON."""
        if checkpoint is None:
            return json.dumps([dataclasses.asdict(Progress()), self.run.rewind(-1), []]).encode()
        progress = self.progress = self.progress_of(checkpoint)
        try:
            self._take(checkpoint.state.get("repairs", []))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise StoriesError(
                f"{checkpoint.path / 'state.json'} is damaged: no valid repairs ({error})."
            ) from error
        checkpoints.restore(checkpoint, self.model, self.optimizer)
        records = self.run.rewind(progress.step, self.repairs)
        return json.dumps([dataclasses.asdict(progress), records, self.repairs]).encode()

    @staticmethod
    def progress_of(checkpoint: Checkpoint) -> Progress:
        """Where training stood at a checkpoint."""
        where = f"{checkpoint.path / 'state.json'}, progress"
        return from_dict(Progress, checkpoint.state.get("progress"), where)

    def _take(self, repairs: list[dict]) -> None:
        """Apply the repairs of a checkpoint."""
        phase = self.phase
        for repair in repairs:
            phase = override(phase, {path: new for path, (_, new) in repair["changes"].items()})
            self.stream.skipped |= {tuple(place) for place in repair["skipped"]}
        self.repairs = repairs
        self.recast(phase)

    def go_back(self, repair: dict) -> None:
        """Make a repair last, with the trainer set to the point it begins at: metrics and checkpoints after this
        point are dropped, and it is saved."""
        self.repairs = [*self.repairs, self.position() | {"split": "repair"} | repair]
        self.stream.skipped |= {tuple(place) for place in repair["skipped"]}
        self.stream.seek(self.progress.epoch, self.progress.batch)
        self.run.drop_checkpoints(self.progress.step)
        self._save(None)
        self.run.keep_metrics(self.progress.step, self.repairs)

    def train(self) -> Evaluation | None:
        """Train to the end, through an early cool-down where validation has stopped improving at the full rate, or
        until a signal asks to stop after the step; see `stop_signal`.

        Returns:
            The evaluation after the last update, or None when it was stopped before.

        Raises:
            NotFinite: the loss or a gradient is not finite; checkpoints written before stay.
            Lost: in ``group.supervised``: another process ended; checkpoints written before stay.
            StoriesError: the run directory cannot be written.
            KeyboardInterrupt: the signal also ended a compiler that MLX had started, so that the step cannot be
                finished; checkpoints written before stay.
        """
        with self.run.locked(), stop_signal() as stopping:
            while True:
                evaluation = self._train(stopping)
                if evaluation is None or (cooldown := self._early_cooldown()) is None:
                    return evaluation
                if self.group.agree(stopping.is_set(), now=True):
                    return None
                self._cool_down(cooldown)

    def _train(self, stopping: threading.Event) -> Evaluation | None:
        """Train on until it `has_finished` or is to stop."""
        began = time.perf_counter() - self.progress.seconds
        # the same seed need not give the same weights on another computer
        self.model.update(self.group.adopt(self.model.parameters()))
        self.optimizer.state = self.group.adopt(self.optimizer.state)
        step = self.new_step()
        window = Window(step.names, self.progress)
        if self.has_finished(self.progress):  # it was killed before its result was written
            return self.evaluator(self.dataset.val, self.dataset.floor)
        if self.progress.step == 0:
            self._evaluate()
            window.restart_clock()
        while True:
            if not self.model.training:  # going through all modules costs a small model a tenth of its update
                self.model.train()
            batches = [next(self.stream) for _ in range(self.phase.accumulation)]
            seed = self.group.seed(self.config.seed * 2**32 + self.progress.step)
            self.progress.step += 1
            self.progress.epoch, self.progress.batch = self.stream.epoch, self.stream.batch
            done = self.progress.step == self.total_steps
            due = done or self.progress.step % self.evaluate_every == 0
            log = due or self._is_multiple(self.config.log_every)
            save = due or self._is_multiple(self.config.save_every)
            with self.group.waiting():
                result = step(batches, seed, norms=log or save)
            stop = self.group.agree(stopping.is_set(), now=log or save)
            window.add(result)
            save = save or stop
            if log:
                self._log(window)
            elif save:
                window.settle()
            evaluation = self._evaluate() if due else None
            self.progress.seconds = time.perf_counter() - began
            if save:
                self._save(evaluation)
                window.restart_clock()
            if self.has_finished(self.progress):
                return evaluation
            if stop:
                return None

    def has_finished(self, progress: Progress) -> bool:
        """Whether ``progress`` is at the last update, or validation has stopped improving before."""
        patience = self.config.stop_after
        if progress.cooldown is not None:  # which is made to its end
            return progress.step >= progress.cooldown.ends
        return progress.step >= self.planned_steps or (patience is not None and progress.stale >= patience)

    def _early_cooldown(self) -> Cooldown | None:
        """What follows where training has ended early; a run under repair goes back by other rules."""
        if self.progress.step == self.total_steps or self.config.max_repairs:
            return None
        return early_cooldown(
            self.phase.schedule, self.planned_steps, self.progress.step, self.progress.best_step
        )

    def _cool_down(self, cooldown: Cooldown) -> None:
        """Go back to the best weights, and from them into the cool-down; the stories go on where they are."""
        self.progress.cooldown = cooldown
        self._build_optimizer()
        self.group.together(self._restore_best if self.group.leads else lambda: None)
        self._write({"split": "cooldown", "weights_of": cooldown.weights_of, "updates": cooldown.updates})

    def _restore_best(self) -> None:
        checkpoints.restore(self.run.checkpoint("best"), self.model, self.optimizer)

    def _is_multiple(self, updates: int | None) -> bool:
        return updates is not None and self.progress.step % updates == 0

    def _log(self, window: Window) -> None:
        record = window.flush()
        record["learning_rate"] = float(self.learning_rate(self.optimizer.step - 1))
        self._write(record)

    def _evaluate(self) -> Evaluation:
        evaluation = self.evaluator(self.dataset.val, self.dataset.floor)
        self.progress.validated(evaluation.loss)
        record = {"split": "val", "loss": evaluation.loss, "accuracy": evaluation.accuracy}
        if self.model.config.arch == "decoder":
            record["bits_per_character"] = self.dataset.bits_per_character(evaluation.loss)
        self._write(record)
        return evaluation

    def position(self) -> dict:
        """Step, epoch and tokens as in every line of metrics."""
        epoch = self.progress.step / self.updates_per_epoch
        return {"step": self.progress.step, "epoch": round(epoch, 4), "tokens": self.progress.tokens}

    def _write(self, record: dict) -> None:
        position = self.position()
        self.run.append(position | record)
        self.report(position | record)
        found = self._watch(position | record)
        if found:
            self.run.add_findings(found)
        for finding in found:
            self.warn(finding)

    def _watch(self, record: dict) -> list[Finding]:
        if record["split"] == "cooldown":
            return []
        if record["split"] == "val":
            return self.watch(record["step"], val_loss=record["loss"])
        return self.watch(record["step"], loss=record["loss"], grad_norm=record["grad_norm"])

    def _save(self, evaluation: Evaluation | None) -> None:
        if self.group.leads:
            self.save_in(self.run, None if evaluation is None else evaluation.loss)

    def save_in(self, run: Run, val_loss: float | None = None) -> None:
        """Write a checkpoint into ``run``."""
        state = {
            "step": self.progress.step,
            "val_loss": val_loss,
            "seed": self.config.seed,
            "progress": dataclasses.asdict(self.progress),
            "repairs": self.repairs,
        }
        checkpoints.save(run, self.model, self.optimizer, state, self.config.keep)
