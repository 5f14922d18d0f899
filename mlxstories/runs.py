"""Run directories: configuration, metrics, checkpoints, and finding them again.

    runs/<name>/config.json        every configuration dataclass, versions, seed, data fingerprint
                tokenizer.json     the tokenizers library's own format
                metrics.jsonl      one JSON object a line
                checkpoints/step-<n>/{model,optimizer}.safetensors, state.json
                samples.txt, findings.json, result.json   written when training ends

Everything is written beside its place and renamed into it, so that a name that exists is whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxstories.data.tokenizer import Tokenizer
from mlxstories.errors import StoriesError
from mlxstories.serialize import read_json

FORMAT = 1
RUNS = Path("runs")


@dataclass(frozen=True)
class Checkpoint:
    """A saved step: its directory and the contents of its ``state.json``."""

    path: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        """The updates done when it was saved."""
        return self.state["step"]


class Run:
    """A run directory that exists."""

    def __init__(self, path: Path):
        self.path = Path(path)

    @classmethod
    def create(cls, path: Path, config: dict, tokenizer: Tokenizer) -> Run:
        """A new run directory, which appears whole or not at all.

        Raises:
            StoriesError: ``path`` exists already, or its folder cannot be written.
        """
        path = Path(path)
        if path.exists():
            raise StoriesError(f"run {path} exists already: choose another --name, or --resume {path}.")
        with new_directory(path) as staging:
            (staging / "checkpoints").mkdir()
            tokenizer.save(staging / "tokenizer.json")
            write_json(staging / "config.json", {"format": FORMAT, "name": path.name, **config})
            (staging / "metrics.jsonl").touch()
        return cls(path)

    @property
    def config(self) -> dict[str, Any]:
        config = read_json(self.path / "config.json")
        if not isinstance(config, dict) or config.get("format") != FORMAT:
            raise StoriesError(f"{self.path / 'config.json'} is not a run configuration of format {FORMAT}.")
        return config

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self.path / "tokenizer.json")

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``; a last line cut short by a crash is left out."""
        path = self.path / "metrics.jsonl"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise StoriesError(f"{path} cannot be read ({error}): the run directory is damaged.") from error
        records = []
        for number, line in enumerate(lines, 1):
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError as error:
                if number < len(lines):
                    raise StoriesError(f"{path} line {number} is not JSON: the file is damaged.") from error
        return records

    def append(self, record: dict[str, Any]) -> None:
        with writing(self.path), open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def add_findings(self, findings: list) -> None:
        """Append to ``findings.json`` what the ladder or the watch found."""
        path = self.path / "findings.json"
        earlier = read_json(path) if path.is_file() else []
        write_json(path, [*earlier, *(dataclasses.asdict(finding) for finding in findings)])

    def truncate_metrics(self, step: int) -> None:
        """Drop the lines after ``step``, which a resumed run is going to measure again."""
        kept = [json.dumps(record) + "\n" for record in self.metrics() if record["step"] <= step]
        write_text(self.path / "metrics.jsonl", "".join(kept))

    def checkpoints(self) -> list[Checkpoint]:
        """All checkpoints, oldest first."""
        folders = (self.path / "checkpoints").glob("step-*")
        found = [Checkpoint(folder, read_json(folder / "state.json")) for folder in folders]
        return sorted(found, key=lambda checkpoint: checkpoint.step)

    def checkpoint(self, which: str) -> Checkpoint:
        """The ``"last"`` checkpoint or the ``"best"`` one, that with the lowest validation loss."""
        found = self.checkpoints()
        if not found:
            raise StoriesError(f"run {self.path} has no checkpoint: it ended before its first one.")
        if which == "last":
            return found[-1]
        return min(found, key=lambda c: (c.state["val_loss"] is None, c.state["val_loss"], c.step))


def find_run(name: str | Path | None = None, runs: Path = RUNS) -> Run:
    """The run called ``name`` (a directory, or a name under ``runs``), or the newest when it is None.

    Raises:
        StoriesError: there is no such run.
    """
    if name is None:
        found = [path.parent for path in Path(runs).glob("*/config.json") if path.parent.name[0] != "."]
        if not found:
            raise StoriesError(f"no run under {runs}/ yet: train one with `mlxstories train`.")
        return Run(max(found, key=lambda path: (path / "config.json").stat().st_mtime))
    for path in (Path(name), Path(runs) / name):
        if (path / "config.json").is_file():
            return Run(path)
    raise StoriesError(f"{name} is not a run: no such directory with a config.json, here or under {runs}/.")


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn a failure to write into one clear line."""
    try:
        yield
    except OSError as error:
        raise StoriesError(f"cannot write to {place}: {error.strerror or error}.") from error


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A hidden directory to fill, renamed to ``path`` when the block ends well and removed otherwise."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        try:
            yield staging
            staging.chmod(0o755)
            if path.exists():
                shutil.rmtree(path)
            staging.rename(path)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Write beside ``path``, then rename: the old content or the new one, never a part."""
    beside = path.with_name(f".{path.name}.writing")
    with writing(path):
        with open(beside, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
