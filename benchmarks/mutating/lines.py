"""Which lines of some files are run, and by which part of a training setup."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import mlx.nn as nn

from mlxstories.ladder import Subject

_FIELDS = {
    "train_batches": "data",
    "val_batches": "data",
    "loss": "loss",
    "optimizer": "step",
    "train_step": "step",
    "evaluate": "evaluation",
    "generate": "generation",
}


class Lines:
    """Follows the lines of some files while they run, and the part of the setup that runs them."""

    def __init__(self, files: list[str]):
        self.files = set(files)
        self.seen: dict[str, dict[int, set[str]]] = {file: {} for file in files}
        self.inside: list[str] = []

    @contextmanager
    def followed(self) -> Iterator[None]:
        sys.settrace(self._called)
        threading.settrace(self._called)
        try:
            yield
        finally:
            self.stop()

    def stop(self) -> None:
        sys.settrace(None)
        threading.settrace(None)
        self.files = set()

    def by_part(self, subject: Subject) -> Subject:
        """The subject, each function of which says which part is running."""
        functions = {name: getattr(subject, name) for name in _FIELDS}
        return replace(
            subject, **{n: self._within(f, _FIELDS[n]) for n, f in functions.items() if f is not None}
        )

    def _within(self, function: Callable, part: str) -> Callable:
        def call(*args, **kwargs):
            with self._part(part):
                result = function(*args, **kwargs)
            return self._each(result, part) if part == "data" else result

        return call

    def _each(self, items, part: str) -> Iterator:
        items = iter(items)
        while True:
            with self._part(part):
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item

    @contextmanager
    def _part(self, part: str) -> Iterator[None]:
        self.inside.append(part)
        try:
            yield
        finally:
            self.inside.remove(part)

    def _called(self, frame, event, _):
        return self._line if frame.f_code.co_filename in self.files else None

    def _line(self, frame, event, _):
        if event == "line" and frame.f_code.co_filename in self.files:
            found = self.seen[frame.f_code.co_filename].setdefault(frame.f_lineno, set())
            part = "model" if _of_a_module(frame) else self.inside[-1] if self.inside else _outside(frame)
            if part:
                found.add(part)
        return self._line


def _outside(frame) -> str | None:
    """What runs while a file is imported is told apart from what builds the setup."""
    return "import" if frame.f_code.co_name == "<module>" else None


def _of_a_module(frame) -> bool:
    while frame is not None:
        if isinstance(frame.f_locals.get("self"), nn.Module) and frame.f_code.co_name in (
            "__call__",
            "__init__",
        ):
            return True
        frame = frame.f_back
    return False
