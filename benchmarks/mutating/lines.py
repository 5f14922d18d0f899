"""Which lines of some files are run, and by which part of a training setup."""

from __future__ import annotations

import ast
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import mlx.nn as nn
import mlx.optimizers as optim

from mlxstories.ladder import Subject
from mutating.operators import name_of

_FIELDS = {
    "train_batches": "data",
    "val_batches": "data",
    "loss": "loss",
    "optimizer": "step",
    "train_step": "step",
    "evaluate": "evaluation",
    "generate": "generation",
}

_MADE = set(dir(optim)) - {"clip_grad_norm"}


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

    def forget(self, part: str) -> None:
        """What this part has run so far is not known any more."""
        for found in self.seen.values():
            for ran in found.values():
                ran.discard(part)

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


def parts(source: str, ran: Mapping[str, list[str]], script: bool) -> dict[int, set[str]]:
    """By line that may be mutated, the parts of the setup in which a mistake in it lies.

    These are the lines that the model, the loss, the step, batching, evaluation or decoding run, and those that make
    an optimiser or its schedule; not what reads texts, chooses sizes or builds the setup, which would make it another.

    Args:
        ran: by line, what ran it. A script makes its batches inside its loop, so there a step's line may be either.
    """
    found: dict[int, set[str]] = {line: {"step"} for line in _of_optimizers(source) if str(line) in ran}
    for line, told in ran.items():
        known = {"model"} if "model" in told else set(told) - {"import"}
        known = known - {"step"} if "loss" in known else known
        if known:
            found[int(line)] = known | {"data"} if script and known == {"step"} else known
    return found


def _of_optimizers(source: str) -> Iterator[int]:
    """Lines of statements that make an optimiser or a schedule."""
    for statement in ast.walk(ast.parse(source)):
        if isinstance(statement, (ast.Assign, ast.Return, ast.Expr)):
            calls = (node for node in ast.walk(statement) if isinstance(node, ast.Call))
            if any(name_of(call) in _MADE for call in calls):
                yield from range(statement.lineno, statement.end_lineno + 1)
