"""Run directories: configuration, metrics, checkpoints, and finding them again.

    runs/<name>/config.json        every configuration dataclass, versions, seed, data fingerprint
                tokenizer.json     the tokenizers library's own format
                metrics.jsonl      one JSON object a line
                checkpoints/step-<n>/{model,optimizer}.safetensors, state.json
                samples.txt, findings.json, result.json   written when training ends
                .lock              held by the process that trains

A name that exists is whole: everything is written beside its place and renamed into it, except metrics.jsonl, which
grows by lines. No file of a run may be a symbolic link, so that nothing is read or written outside its directory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlxstories.data.tokenizer import Tokenizer
from mlxstories.errors import StoriesError, did_you_mean, listed
from mlxstories.runs.checkpoint_state import Checkpoint, by_loss, refuse_odd, step_of
from mlxstories.runs.config import check_types
from mlxstories.storage.files import (
    new_directory,
    remove_directory,
    remove_partial,
    write_json,
    write_text,
    writing,
)
from mlxstories.storage.lock import locked
from mlxstories.storage.serialize import parse_json, read_json

FORMAT = 1
RUNS = Path("runs")

_log = logging.getLogger(__name__)


class Run:
    """A run directory that exists."""

    def __init__(self, path: Path):
        self.path = Path(path)

    @classmethod
    def create(
        cls,
        path: Path,
        config: dict,
        tokenizer: Tokenizer,
        fill: Callable[[Run], object] | None = None,
    ) -> Run:
        """A new run directory, which appears whole or not at all; ``fill`` may write further files before it does.

        Raises:
            StoriesError: ``path`` exists already, or its folder cannot be written.
        """
        path = free(Path(path))
        with new_directory(path) as staging:
            (staging / "checkpoints").mkdir()
            tokenizer.save(staging / "tokenizer.json")
            write_json(staging / "config.json", {"format": FORMAT, "name": path.name, **config})
            (staging / "metrics.jsonl").touch()
            if fill is not None:
                fill(cls(staging))
        remove_partial(path.parent, older_than=time.time() - 3600)  # of processes killed in the lines above
        return cls(path)

    def file(self, name: str) -> Path:
        """The path of a file of the run.

        Raises:
            StoriesError: it is a symbolic link, which could lead out of the run's directory, or a pipe or device, at
                which reading would wait.
        """
        path = self.path / name
        refuse_odd(path)
        return path

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Hold the run for this process; raises :class:`mlxstories.storage.lock.Busy` if another one does."""
        return locked(self.path)

    @property
    def config(self) -> dict[str, Any]:
        path = self.file("config.json")
        config = read_json(path)
        if not isinstance(config, dict) or config.get("format") != FORMAT:
            foreign = isinstance(config, dict) and "model_type" in config
            hint = (
                f" It may be an exported model: `mlxstories import {self.path}` makes it a run."
                if foreign
                else ""
            )
            raise StoriesError(f"{path} is not a run configuration of format {FORMAT}.{hint}")
        check_types(config, path)
        return config

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self.file("tokenizer.json"))

    def metrics(self) -> list[dict[str, Any]]:
        """The measurements of ``metrics.jsonl``; a last line cut short by a crash is left out."""
        path = self.file("metrics.jsonl")
        try:
            *lines, last = path.read_bytes().split(b"\n")
        except OSError as error:
            raise StoriesError(f"cannot read {path}: {error.strerror or error}.") from error
        records = []
        for number, line in enumerate(lines, 1):
            try:
                records.append(parse_json(line.decode()))
            except ValueError as error:
                raise StoriesError(f"{path} line {number} is not JSON: the file is damaged.") from error
        with contextlib.suppress(ValueError):
            records += [parse_json(last.decode())] if last else []
        for number, record in enumerate(records, 1):
            known = isinstance(record, dict) and record.get("split") in ("train", "val", "repair", "cooldown")
            if not known or not isinstance(record.get("step"), int):
                raise StoriesError(f"{path} line {number} is not a measurement: the file is damaged.")
        return records

    def append(self, record: dict[str, Any]) -> None:
        with writing(self.path), open(self.file("metrics.jsonl"), "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def add_findings(self, findings: list) -> None:
        """Append to ``findings.json`` what the ladder or the watch found."""
        path = self.file("findings.json")
        earlier = read_json(path) if path.is_file() else []
        if not isinstance(earlier, list):
            raise StoriesError(f"{path} is not a list of findings: the file is damaged.")
        write_json(path, [*earlier, *(dataclasses.asdict(finding) for finding in findings)])

    def rewind(self, step: int, repairs: Sequence[dict[str, Any]] = ()) -> list[dict[str, Any]]:
        """Forget the metrics and the watch's findings after ``step``, which will be measured again, and what killed
        processes left half-written. Returns the measurements that stay."""
        remove_partial(self.path)
        remove_partial(self.path / "checkpoints")
        kept = self.keep_metrics(step, repairs)
        path = self.file("findings.json")
        if path.is_file():
            try:
                early = [f for f in read_json(path) if _stays(f, step)]
            except (TypeError, KeyError, IndexError) as error:
                raise StoriesError(f"{path} holds no list of findings: it is damaged.") from error
            write_json(path, early)
        return kept

    def keep_metrics(self, step: int, repairs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Drop the measurements after ``step`` (all at step 0, where training begins by measuring), a cool-down that
        would begin there again, and all repairs but these. Returns the measurements that stay."""
        ends = {"train": step, "val": step, "cooldown": step - 1, "repair": -1}
        kept = [record for record in self.metrics() if record["step"] <= ends[record["split"]]]
        kept = kept if step > 0 else []
        lines = sorted([*repairs, *kept], key=lambda record: record["step"])
        write_text(self.file("metrics.jsonl"), "".join(json.dumps(line) + "\n" for line in lines))
        return kept

    def saved(self) -> bool:
        """Whether there is a checkpoint, whole or not."""
        return bool(self._steps())

    def checkpoints(self) -> list[Checkpoint]:
        """All checkpoints whose state can be read, oldest first; their arrays are not looked at."""
        found = []
        for path in self._steps():
            with contextlib.suppress(StoriesError):
                found.append(Checkpoint.read(path))
        return found

    def checkpoint(self, which: str) -> Checkpoint:
        """The ``"last"`` checkpoint or the ``"best"`` one, that with the lowest validation loss.

        Its files are verified. Where one is damaged, a warning says so and the next one is taken.

        Raises:
            StoriesError: the run has no checkpoint, or none that is whole.
        """
        candidates, damages = [], []
        for path in self._steps():
            try:
                candidates.append(Checkpoint.read(path))
            except StoriesError as error:
                damages.append((path, error))
        if which == "best":
            candidates.sort(key=by_loss, reverse=True)
        while candidates:
            checkpoint = candidates.pop()
            try:
                checkpoint.verify()
            except StoriesError as error:
                damages.append((checkpoint.path, error))
                continue
            for path, damage in damages:
                if which == "best" or step_of(path) > checkpoint.step:
                    _log.warning("warning: %s Taking step %d instead.", damage, checkpoint.step)
            return checkpoint
        if damages:
            raise StoriesError(f"run {self.path} has no whole checkpoint: {damages[-1][1]}")
        raise StoriesError(
            f"run {self.path} has no checkpoint yet: wait for its first one, or where it was stopped before that, "
            f"continue with: mlxstories train --resume {self.path}"
        )

    def drop_checkpoints(self, step: int) -> None:
        """Remove the checkpoints after ``step``."""
        for path in self._steps():
            if step_of(path) > step:
                remove_directory(path)

    def prune(self, keep: int) -> None:
        """Remove all checkpoints but the ``keep`` newest whole ones and the best."""
        found = self.checkpoints()
        measured = [checkpoint for checkpoint in found if checkpoint.state["val_loss"] is not None]
        kept = {checkpoint.path for checkpoint in [*found[-keep:], *sorted(measured, key=by_loss)[:1]]}
        for path in self._steps():
            if path not in kept:
                remove_directory(path)

    def _steps(self) -> list[Path]:
        """Directories that are called like checkpoints, oldest first."""
        folder = self.file("checkpoints")
        if not folder.is_dir():
            return []
        try:
            names = os.listdir(folder)
        except OSError as error:  # as if there were none, glob would say
            raise StoriesError(f"cannot read {folder}: {error.strerror}.") from error
        found = [folder / name for name in names if re.fullmatch(r"step-\d{1,18}", name)]
        return sorted(found, key=step_of)


_LONGEST = 200  # bytes of a run's name, of the 255 that file systems allow


def run_path(runs: Path, name: str) -> Path:
    """Where the run called ``name`` lies under ``runs``.

    Raises:
        StoriesError: the name is a path, begins with a dot, as what is being written does, or leaves no room for that
            in the name of a file.
    """
    if len(os.fsencode(name)) > _LONGEST:
        raise StoriesError(
            f"{name[:40] + '…'!r} is too long for a run's name: take at most {_LONGEST} bytes."
        )
    if not name or name != Path(name).name or name.startswith(".") or not name.isprintable():
        raise StoriesError(f"{name!r} cannot be a run's name: take one without / and without a dot in front.")
    return Path(runs) / name


def free(path: Path) -> Path:
    """A path, where nothing is yet.

    Raises:
        StoriesError: something is.
    """
    if path.exists() or path.is_symlink():
        raise StoriesError(f"run {path} exists already: choose another --name, or --resume {path}.")
    return path


def find_run(name: str | Path | None = None, runs: Path = RUNS) -> Run:
    """The run called ``name`` (a directory, or a name under ``runs``), or the newest when it is None.

    Raises:
        StoriesError: there is no such run.
    """
    if name is None:
        found = _under(runs)
        if not found:
            raise StoriesError(f"no run under {runs}/ yet: train one with `mlxstories train`.")
        return Run(max(found, key=lambda path: (path / "config.json").stat().st_mtime))
    for path in (Path(name), Path(runs) / name):
        if os.path.isfile(path / "config.json"):
            return Run(path)
        if path.is_dir() and not os.access(path, os.R_OK | os.X_OK):
            raise StoriesError(f"cannot read {path}: Permission denied.")
    newest = sorted(_under(runs), key=lambda path: -(path / "config.json").stat().st_mtime)
    known = [path.name for path in newest]
    hint = did_you_mean(str(name), known) or (f" There are {listed(known, 3)}." if known else "")
    raise StoriesError(
        f"{name} is not a run: no such directory with a config.json, here or under {runs}/.{hint}"
    )


def _under(runs: Path) -> list[Path]:
    """The runs in a folder, but for those that are being written."""
    return [path.parent for path in Path(runs).glob("*/config.json") if path.parent.name[0] != "."]


def _stays(finding: dict[str, Any], step: int) -> bool:
    """Whether a finding was made up to ``step``; those of the checks before training were made at step 0."""
    return (finding["evidence"]["step"] if finding["rung"] == "training" else 0) <= step
