"""The training loop: batches, updates, validation, checkpoints, in that order, until the last update."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np
from mlx.optimizers import Optimizer

from mlxstories.checks import check_choice, check_number
from mlxstories.data.dataset import Dataset
from mlxstories.distributed import ALONE, Group
from mlxstories.errors import StoriesError
from mlxstories.ladder import Finding, Watch
from mlxstories.model import Transformer, block_of
from mlxstories.optim import build_optimizer, build_schedule
from mlxstories.runs import checkpoints
from mlxstories.runs.directory import Checkpoint, Run
from mlxstories.storage.serialize import from_dict
from mlxstories.training.evaluation import Evaluation, Evaluator
from mlxstories.training.losses import objective
from mlxstories.training.phases import Phase, override
from mlxstories.training.step import StepResult, TrainStep
from mlxstories.training.stopping import stop_signal
from mlxstories.training.stream import Stream


@dataclass(frozen=True)
class TrainingConfig:
    """How long and on what batches.

    Attributes:
        epochs: times through the training stories; ignored when ``steps`` is given.
        steps: updates, or None.
        batch_size: rows of a microbatch, shared among the processes where there are several.
        layout: ``"packed"`` (whole stories side by side) or ``"padded"`` (one story a row).
        seed: of the initial weights, the order of the rows, dropout and masking.
        log_every: updates between two lines of training metrics.
        evaluations: validations in a run at the least; there is always one each epoch.
        keep: newest checkpoints that are kept, besides the best.
        every: updates between two checkpoints; None: they are saved at validations alone.
        max_repairs: how often a run that goes wrong is repaired; 0: it is only watched.
        dtype: of the forward and backward passes, "float32" or "bfloat16"; the weights stay float32.
    """

    epochs: int = 4
    steps: int | None = None
    batch_size: int = 4
    layout: str = "packed"
    seed: int = 0
    log_every: int = 10
    evaluations: int = 10
    keep: int = 2
    every: int | None = None
    max_repairs: int = 0
    dtype: str = "float32"

    def __post_init__(self):
        for name in ("epochs", "steps", "batch_size", "log_every", "evaluations", "keep", "every"):
            value = getattr(self, name)
            if value is not None:
                check_number(name, value, at_least=1, whole=True)
        check_number("max_repairs", self.max_repairs, at_least=0, whole=True)
        check_choice("layout", self.layout, ("packed", "padded"))
        check_choice("dtype", self.dtype, ("float32", "bfloat16"))
        check_number("seed", self.seed, at_least=0, at_most=2**31 - 1, whole=True)

    def share(self, processes: int) -> int:
        """Rows of a microbatch that each of so many processes reads.

        Raises:
            StoriesError: they cannot have equal shares.
        """
        if self.batch_size % processes:
            raise StoriesError(
                f"a batch of {self.batch_size} rows cannot be divided among {processes} processes: "
                f"take a --batch-size that is a multiple of {processes}, or another number of processes."
            )
        return self.batch_size // processes


@dataclass
class Progress:
    """Where a run stands. Together with the weights and the optimiser's state it is all a resumed run needs:
    every step draws its randomness from the seed and its own number.

    Attributes:
        step: updates done.
        tokens: real tokens trained on, up to the last line of metrics.
        epoch, batch: the data position, the next microbatch to train on.
        seconds: spent so far, evaluations included.
        window: nats, tokens, hits and gradient norm of each step since the last line of metrics.
        window_seconds: spent on them.
        extra_updates: spent on repairs: those of trials and those that were thrown away.
    """

    step: int = 0
    tokens: int = 0
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    window: list[list[float]] = field(default_factory=list)
    window_seconds: float = 0.0
    extra_updates: int = 0


class NotFinite(Exception):
    """The loss or a gradient became infinite or NaN; the message says at which step and where."""


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
        self.total_steps = self.config.steps or self.config.epochs * self.updates_per_epoch
        at_least = math.ceil(self.total_steps / self.config.evaluations)
        self.evaluate_every = min(self.updates_per_epoch, at_least)
        self.evaluator = Evaluator(self.model, self.group)
        self.recast(self.phase)

    def recast(self, phase: Phase) -> None:
        """Take ``phase`` as the recipe from here on, with an optimiser that has seen nothing."""
        self.phase = phase
        self.learning_rate = build_schedule(phase.schedule, phase.optimizer.learning_rate, self.total_steps)
        self.optimizer: Optimizer = build_optimizer(phase.optimizer, self.learning_rate)
        self.optimizer.init(self.model.trainable_parameters())
        floor = self.dataset.floor and self.dataset.floor.nats
        self.watch = Watch(floor=floor, vocab_size=self.model.config.vocab_size)

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
        if self.repairs != repairs:
            self._take(repairs)
        self.progress = Progress(**progress)
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
        where = f"{checkpoint.path / 'state.json'}, progress"
        progress = from_dict(Progress, checkpoint.state.get("progress"), where)
        try:
            self._take(checkpoint.state.get("repairs", []))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise StoriesError(
                f"{checkpoint.path / 'state.json'} is damaged: no valid repairs ({error})."
            ) from error
        checkpoints.restore(checkpoint, self.model, self.optimizer)
        records = self.run.rewind(progress.step, self.repairs)
        return json.dumps([dataclasses.asdict(progress), records, self.repairs]).encode()

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
        """Train to the last update, or until a signal asks to stop after the step; see `stop_signal`.

        Returns:
            The evaluation after the last update, or None when it was stopped before.

        Raises:
            NotFinite: the loss or a gradient is not finite; checkpoints written before stay.
            Lost: in ``group.supervised``: another process ended; checkpoints written before stay.
            StoriesError: the run directory cannot be written.
        """
        began = time.perf_counter() - self.progress.seconds
        with self.run.locked(), stop_signal() as stopping:
            # the same seed need not give the same weights on another computer
            self.model.update(self.group.adopt(self.model.parameters()))
            self.optimizer.state = self.group.adopt(self.optimizer.state)
            step = self.new_step()
            window = _Window(step.names, self.progress)
            if self.progress.step == self.total_steps:  # it was killed before its result was written
                return self.evaluator(self.dataset.val, self.dataset.floor)
            if self.progress.step == 0:
                self._evaluate()
                window.restart_clock()
            while True:
                self.model.train()
                batches = [next(self.stream) for _ in range(self.phase.accumulation)]
                seed = self.group.seed(self.config.seed * 2**32 + self.progress.step)
                with self.group.waiting():
                    result = step(batches, seed)
                self.progress.step += 1
                self.progress.epoch, self.progress.batch = self.stream.epoch, self.stream.batch
                done = self.progress.step == self.total_steps
                due = done or self.progress.step % self.evaluate_every == 0
                log = due or self._is_multiple(self.config.log_every)
                save = due or self._is_multiple(self.config.every)
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
                if done or stop:
                    return evaluation if done else None

    def _is_multiple(self, updates: int | None) -> bool:
        return updates is not None and self.progress.step % updates == 0

    def _log(self, window: _Window) -> None:
        record = window.flush()
        record["learning_rate"] = float(self.learning_rate(mx.array(self.progress.step - 1)))
        self._write(record)

    def _evaluate(self) -> Evaluation:
        evaluation = self.evaluator(self.dataset.val, self.dataset.floor)
        self._write({"split": "val", "loss": evaluation.loss, "accuracy": evaluation.accuracy})
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
        if record["split"] == "val":
            return self.watch(record["step"], val_loss=record["loss"])
        return self.watch(record["step"], loss=record["loss"], grad_norm=record["grad_norm"])

    def _save(self, evaluation: Evaluation | None) -> None:
        if not self.group.leads:
            return
        state = {
            "step": self.progress.step,
            "val_loss": None if evaluation is None else evaluation.loss,
            "seed": self.config.seed,
            "progress": dataclasses.asdict(self.progress),
            "repairs": self.repairs,
        }
        checkpoints.save(self.run, self.model, self.optimizer, state, self.config.keep)


class _Window:
    """What the steps since the last line of metrics measured, kept in ``progress``.

    A step's numbers are read while the next one runs, so the device never waits for the host.
    """

    def __init__(self, names: list[str], progress: Progress):
        self._names, self._progress, self._pending = names, progress, None
        self.restart_clock()

    def restart_clock(self) -> None:
        self._began = time.perf_counter()

    def add(self, result: StepResult) -> None:
        if self._pending is not None:
            self._read()
        self._pending = result

    def _read(self) -> None:
        self._progress.window.append([float(value) for value in self._pending[:4]])
        self._norms, self._pending = self._pending.norms, None

    def settle(self) -> None:
        """Wait for the last step. Raises NotFinite."""
        self._read()
        self._progress.window_seconds += time.perf_counter() - self._began
        self.restart_clock()
        nats, _, _, norms = np.array(self._progress.window, dtype=np.float64).T
        bad = ~np.isfinite(nats) | ~np.isfinite(norms)
        if bad.any():
            step = self._progress.step - len(bad) + int(bad.argmax()) + 1
            wrong = [name for name, value in self._norm_of().items() if not math.isfinite(value)]
            where = f"the gradient of {wrong[0]} and {len(wrong) - 1} more" if wrong else "the loss"
            raise NotFinite(f"step {step}: {where} is not finite.")

    def _norm_of(self) -> dict[str, float]:
        return dict(zip(self._names, np.array(self._norms).tolist(), strict=True))

    def flush(self) -> dict:
        """A line of metrics; the window starts anew."""
        self.settle()
        nats, tokens, hits, norms = np.array(self._progress.window, dtype=np.float64).T
        blocks: dict[str, float] = {}
        for name, value in self._norm_of().items():
            block = block_of(name)
            blocks[block] = math.hypot(blocks.get(block, 0.0), value)
        record = {
            "split": "train",
            "loss": nats.sum() / tokens.sum(),
            "accuracy": hits.sum() / tokens.sum(),
            "grad_norm": norms[-1],
            "block_grad_norms": blocks,
            "tokens_per_second": tokens.sum() / self._progress.window_seconds,
        }
        self._progress.tokens += int(tokens.sum())
        self._progress.window, self._progress.window_seconds = [], 0.0
        return record
