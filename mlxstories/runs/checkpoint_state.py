"""A checkpoint as files: what its ``state.json`` holds, and that none of them is damaged."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxstories.errors import StoriesError
from mlxstories.storage.files import sha256, write_json
from mlxstories.storage.serialize import read_json

CHECKPOINT_FORMAT = 2
ARRAY_FILES = ("model.safetensors", "optimizer.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """A saved step: its directory and the contents of its ``state.json``."""

    path: Path
    state: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """The checkpoint in a directory, of which only ``state.json`` is read.

        Raises:
            StoriesError: it is no checkpoint, of another format, or its state is damaged.
        """
        file = path / "state.json"
        refuse_odd(path, file)
        state = read_json(file)
        if not isinstance(state, dict) or state.get("format") != CHECKPOINT_FORMAT:
            version = state.get("format") if isinstance(state, dict) else None
            raise StoriesError(
                f"{file} is a checkpoint of format {version!r}; this version reads {CHECKPOINT_FORMAT}."
            )
        sums = state.get("sha256")
        if state.pop("checksum", None) != _checksum(state) or not isinstance(sums, dict):
            raise StoriesError(f"{file} is damaged: it does not match its checksum.")
        step, val_loss = state.get("step"), state.get("val_loss")
        valid = isinstance(step, int) and "val_loss" in state and isinstance(val_loss, float | None)
        if not valid or path.name != f"step-{step}":
            raise StoriesError(f"{file} is damaged: no valid step and validation loss for {path.name}.")
        return cls(path, state)

    def write(self, staging: Path) -> None:
        """Complete a directory that holds the arrays: their checksums go into ``state.json``."""
        sums = {name: sha256(staging / name) for name in ARRAY_FILES}
        state = {"format": CHECKPOINT_FORMAT, **self.state, "sha256": sums}
        write_json(staging / "state.json", {**state, "checksum": _checksum(state)})

    @property
    def step(self) -> int:
        """The updates done when it was saved."""
        return self.state["step"]

    def verify(self) -> None:
        """Raises StoriesError if a file of arrays is missing or damaged: its SHA-256 differs."""
        for name in ARRAY_FILES:
            file = self.path / name
            refuse_odd(file)
            try:
                sound = sha256(file) == self.state["sha256"].get(name)
            except OSError as error:
                raise StoriesError(f"{file} cannot be read: {error.strerror or error}.") from error
            if not sound:
                raise StoriesError(f"{file} is damaged: its SHA-256 is not that of state.json.")


def step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def by_loss(checkpoint: Checkpoint) -> tuple[float, int]:
    loss = checkpoint.state["val_loss"]
    return (math.inf if loss is None or math.isnan(loss) else loss, -checkpoint.step)


def refuse_odd(*paths: Path) -> None:
    for path in paths:
        if path.is_symlink():
            raise StoriesError(f"{path} is a symbolic link: the files of a run must lie in its directory.")
        if path.exists() and not path.is_file() and not path.is_dir():
            raise StoriesError(f"{path} is no regular file: the run directory is damaged.")


def _checksum(state: dict[str, Any]) -> str:
    """SHA-256 of the state in one canonical form."""
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
