"""The run directory as it looks from the processes that do not write it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from mlxstories.data.tokenizer import Tokenizer
from mlxstories.distributed.group import Group
from mlxstories.runs.directory import Run


class FollowerRun(Run):
    """A run that rank 0 writes: here, perhaps on another computer, it is not even a directory."""

    def __init__(self, path: Path, config: dict[str, Any], tokenizer: str = ""):
        super().__init__(path)
        self._config, self._tokenizer = config, tokenizer

    @property
    def config(self) -> dict[str, Any]:
        return self._config

    def tokenizer(self) -> Tokenizer:
        return Tokenizer(Backend.from_str(self._tokenizer))

    def append(self, record: dict[str, Any]) -> None:
        """Left to rank 0."""

    def add_findings(self, findings: list) -> None:
        """Left to rank 0."""

    def saved(self) -> bool:
        """False: what rank 0 finds in its checkpoints, it sends."""
        return False

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Left to rank 0."""
        return contextlib.nullcontext()


def open_run(group: Group, find: Callable[[], Run]) -> Run:
    """The run that ``find`` returns on rank 0, and what the others need to know of it.

    Raises:
        StoriesError: raised by ``find``, or the run is damaged.
    """
    found: list[Run] = []

    def read() -> bytes:
        found.append(find())
        tokenizer = found[0].tokenizer().backend.to_str()
        return json.dumps([str(found[0].path), found[0].config, tokenizer]).encode()

    path, config, tokenizer = json.loads(group.first(read))
    return found[0] if group.leads else FollowerRun(Path(path), config, tokenizer)
