"""A script's loss as source: (model, batch) -> scalar, with its arguments as they were found."""

from __future__ import annotations

import inspect
import textwrap
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.ladder.capture.copies import seen_by
from mlxstories.ladder.capture.expressions import Expressions, Gap

if TYPE_CHECKING:
    from mlxstories.ladder.capture.script import CapturedScript

_ROLES = {
    "inputs": "inputs",
    "targets": "targets",
    "mask": "mask",
    "row mask": "mx.concatenate([mx.ones(mask[:, :1].shape), mask], axis=1)",
    "tokens": "mx.concatenate([inputs, targets[:, -1:]], axis=1)",
    "labels": "mx.concatenate([inputs[:, :1], targets], axis=1)",
    "lengths": "mask.sum(axis=1)",
}


class Losses:
    """Writes the loss of one script."""

    def __init__(self, script: CapturedScript, written: Expressions):
        self.script, self.written, self.call = script, written, script.loop.waiting
        self.places = script.roles.places

    def source(self, gaps: list[str]) -> str:
        """A function ``loss``; where it cannot be written, a comment, and the gap is told."""
        name = getattr(self.call.function, "__name__", "loss") if self.call else "loss"
        line = self.script.roles.first.line
        at = f" (train it at {line})" if line else ""
        try:
            if self.call is None:
                raise Gap("nothing: the script has ended")
            return self._written()
        except Gap as gap:
            gaps.append(f"loss: {name} sees {gap}")
            return (
                f"\n# TODO: def loss(model, batch), the script's own, {name}{at}. It is left out: it sees {gap}.\n"
                "# The ladder minimises the mean cross-entropy of the tokens that the mask counts instead.\n"
            )

    def _written(self) -> str:
        # First what it sees, then what it is given: a place of the batch may be in either.
        function, before = self._function(self.call.function, depth=2)
        args = [self._given(("arg", index), value) for index, value in enumerate(self.call.args)]
        kwargs = [f"{name}={self._given(('kw', name), value)}" for name, value in self.call.kwargs.items()]
        lines = ['inputs, targets, mask = batch["inputs"], batch["targets"], batch.get("mask")']
        lines += ["mask = mx.ones(inputs.shape) if mask is None else mask"]
        lines += before
        lines += [f"value = {function}({', '.join([*args, *kwargs])})"]
        lines += ["return value[0] if isinstance(value, tuple) else value"]
        return "\ndef loss(model, batch):\n" + textwrap.indent("\n".join(lines), "    ") + "\n"

    def _function(self, function: Callable, depth: int) -> tuple[str, list[str]]:
        """How a function is named in the written file, and the lines that must come before."""
        owner = getattr(function, "__self__", None)
        if owner is self.call.model:
            return f"model.{function.__name__}", []
        if (
            owner is not None
            or isinstance(function, nn.Module)
            or not isinstance(function, types.FunctionType)
        ):
            return self.written.of(function), []
        seen = [key for kind, key, *_ in self.places if kind == "seen"]
        top = next((n for n, v in self.written.names.items() if v is function), None)
        if top is not None and not seen and self.call.model not in list(seen_by(function).values()):
            return f"{self.written.script}.{top}", []
        return self._pasted(function, depth)

    def _pasted(self, function: types.FunctionType, depth: int) -> tuple[str, list[str]]:
        """The text of a function, with what it sees defined before it."""
        if depth == 0 or function.__name__ == "<lambda>":
            return f"({self.written.of_lambda(function)})", []
        try:
            text = textwrap.dedent(inspect.getsource(function))
        except OSError:
            raise Gap("no source of its own") from None
        before: list[str] = []
        for name, value in seen_by(function).items():
            if name == function.__name__ or name in ("mx", "nn", "np", "optim", "partial"):
                continue
            if isinstance(value, types.FunctionType) and self.written.of_named(value) is None:
                other, lines = self._pasted(value, depth - 1)
                before += [*lines] if other == name else [*lines, f"{name} = {other}"]
            elif name != "model" or value is not self.call.model:
                before.append(f"{name} = {self._given(('seen', name), value)}")
        return function.__name__, [*before, "", text.rstrip(), ""]

    def _given(self, place: tuple, value: Any) -> str:
        """The source of one argument, with the parts of the batch in their places."""
        if value is self.call.model:
            return "model"
        if place in self.script.roles.weights:
            return "model.trainable_parameters()"
        if place in self.places:
            return self._role(self.places[place], value)
        if any(other[: len(place)] == place for other in self.places):
            keys = list(value) if type(value) is dict else list(range(len(value)))
            parts = {key: self._given((*place, key), value[key]) for key in keys}
            if type(value) is dict:
                return "{" + ", ".join(f"{key!r}: {part}" for key, part in parts.items()) + "}"
            inside = ", ".join(parts.values())
            return f"[{inside}]" if type(value) is list else f"({inside},)"
        if isinstance(value, types.ModuleType):
            return f'import_module("{value.__name__}")'
        return self.written.of(value)

    def _role(self, role: str, value: Any) -> str:
        if role not in _ROLES:
            raise Gap(f"the {role} of its rows")
        text = _ROLES[role]
        if role == "lengths":
            text = f"({text} + {self.script.roles.parts.extra})"
        if value.ndim == 1 and role != "lengths":
            text += ".reshape(-1)"
        if isinstance(value, np.ndarray):
            return f"np.array({text}).astype(np.{value.dtype})"
        if (isinstance(value, mx.array) and value.dtype not in (mx.int32, mx.float32)) or role == "lengths":
            text += f".astype({self.written.of(value.dtype)})"
        return text
