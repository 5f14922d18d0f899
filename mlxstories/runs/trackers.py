"""Handing a run's metrics to TensorBoard or Weights & Biases, through their own packages.

A tracker is told each line of metrics that the trainer reports; the trainer knows nothing of it.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from mlxstories.errors import StoriesError
from mlxstories.runs.directory import Run
from mlxstories.storage.files import write_json, writing
from mlxstories.storage.serialize import read_json

_POSITION = ("step", "split", "epoch", "tokens")
_WANDB_FILE = "wandb.json"  # in the run: the id under which Weights & Biases knows it


class Tracker(Protocol):
    """Where the metrics of a run go: made when training is about to do the first update after ``step``."""

    def write(self, step: int, values: dict[str, float]) -> None:
        """The measurements after ``step`` updates, by names such as train/loss."""

    def close(self) -> None:
        """Nothing more comes."""


class Trackers:
    """Several trackers as one report of the trainer.

    Args:
        names: of TRACKERS.

    Raises:
        StoriesError: an unknown name, or a package that is not installed.
    """

    def __init__(self, names: Sequence[str]):
        for name in names:
            if name not in TRACKERS:
                raise StoriesError(f"unknown tracker {name!r}: choose from {', '.join(TRACKERS)}.")
        self._packages = {name: _package(name) for name in names}
        self._open: list[Tracker] = []

    def begin(self, run: Run, step: int) -> None:
        """Open the trackers of a run of which ``step`` updates are done.

        Raises:
            StoriesError: a tracker cannot be reached.
        """
        for name, package in self._packages.items():
            self._open.append(TRACKERS[name](package, run, step))

    def after(self, report: Callable[[dict], None]) -> Callable[[dict], None]:
        """A report that tells ``report`` first and then every tracker."""

        def both(record: dict[str, Any]) -> None:
            report(record)
            values = dict(scalars(record))
            for tracker in self._open:
                tracker.write(record["step"], values)

        return both

    def close(self) -> None:
        while self._open:
            self._open.pop().close()


def scalars(record: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The measurements of a line of metrics: train/loss, val/accuracy, block_grad_norms/blocks.0, progress/tokens."""
    for name in ("epoch", "tokens"):
        yield f"progress/{name}", float(record[name])
    for name, value in record.items():
        if isinstance(value, dict):
            yield from ((f"{name}/{part}", float(number)) for part, number in value.items())
        elif name not in _POSITION and value is not None:
            yield f"{record['split']}/{name}", float(value)


def _package(name: str) -> Any:
    try:
        return importlib.import_module(_MODULES[name])
    except ImportError as error:
        if (error.name or "").partition(".")[0] == name:
            raise StoriesError(f"{name} is not installed: pip install {name}.") from error
        raise StoriesError(f"{name} is installed but does not load: {error}.") from error


class _TensorBoard:
    """Event files in ``<run>/tensorboard``."""

    def __init__(self, package: Any, run: Run, step: int):
        with writing(run.path):
            self._writer = package.EventFileWriter(str(run.path / "tensorboard"))
        self._last = 0
        if step:
            self._forget(step)

    def write(self, step: int, values: dict[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        if step < self._last:
            self._forget(step - 1)
        self._last = step
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        self._add(step, summary=summary)
        self._writer.flush()

    def _forget(self, step: int) -> None:
        """What was written after ``step`` is measured again, after a resume or a repair."""
        from tensorboard.compat.proto.event_pb2 import SessionLog

        self._add(step + 1, session_log=SessionLog(status=SessionLog.START))

    def _add(self, step: int, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(wall_time=time.time(), step=step, **content))

    def close(self) -> None:
        self._writer.close()


class _WandB:
    """A run of the project ``mlxstories``, its local files in ``<run>/wandb``; the WANDB_ variables apply."""

    def __init__(self, package: Any, run: Run, step: int):
        known = run.file(_WANDB_FILE)
        identity = read_json(known).get("id") if step and known.is_file() else None
        try:
            self._run = package.init(
                project="mlxstories",
                name=run.path.name,
                dir=str(run.path),
                id=identity,
                resume="allow" if identity else None,
                settings=package.Settings(console="off"),
            )
        except package.errors.Error as error:
            raise StoriesError(
                f"wandb cannot be reached: {error}; with WANDB_MODE=offline the metrics stay here. "
                f"Continue with `mlxstories train --resume {run.path}`."
            ) from error
        write_json(known, {"id": self._run.id})
        self._run.config.update(run.config, allow_val_change=True)

    def write(self, step: int, values: dict[str, float]) -> None:
        # Steps that it has are ignored: after a resume they measure the same again, after a repair they are lost.
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()


TRACKERS: dict[str, Callable[[Any, Run, int], Tracker]] = {"tensorboard": _TensorBoard, "wandb": _WandB}
_MODULES = {"tensorboard": "tensorboard.summary.writer.event_file_writer", "wandb": "wandb"}
