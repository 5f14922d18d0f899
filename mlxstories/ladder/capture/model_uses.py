"""Functions of the script's own that call its model outside of gradients, and calling them again."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from inspect import CO_VARARGS, CO_VARKEYWORDS
from types import FrameType, FunctionType
from typing import Any

import mlx.nn as nn

from mlxstories.ladder.where.places import Line, user_frames


@dataclass
class Called:
    """A function of the user's at work, and what it was called with; ``function`` is None for what cannot be called
    again: modules, lambdas and comprehensions."""

    line: Line
    function: Callable | None = None
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)

    def run(self) -> Any:
        return self.function(*self.args, **self.kwargs)

    def with_(self, change: Callable[[Any], Any]) -> Called:
        """The same call, each argument as ``change`` has it."""
        kwargs = {name: change(value) for name, value in self.kwargs.items()}
        return replace(self, args=[change(value) for value in self.args], kwargs=kwargs)


@dataclass
class Use:
    """Where the model is called outside of gradients.

    Attributes:
        model: the script's own.
        functions: on the way there, the outermost first.
        ids: that the model was called with the first time.
        training: its mode then.
    """

    model: nn.Module
    functions: list[Called]
    ids: Any
    training: bool

    def beside(self, loop: list[Line]) -> list[Called]:
        """Functions that are not also on the way to the training loop."""
        depth = 0
        while depth < min(len(self.functions), len(loop)) and (
            self.functions[depth].line[::2] == loop[depth][::2]
        ):
            depth += 1
        return [called for called in self.functions[depth:] if called.function is not None]


def at_work(frame: FrameType | None) -> list[Called]:
    """The user's functions on the way to a frame, the outermost first."""
    return [_called(own) for own in user_frames(frame)][::-1]


def _called(frame: FrameType) -> Called:
    """The call of this frame, with what its parameters are by now."""
    code, scope = frame.f_code, frame.f_locals
    called = Called(Line(code.co_filename, frame.f_lineno, code.co_name))
    function = next((f for f in gc.get_referrers(code) if _made(f, frame)), None)
    count, more, names = code.co_argcount, code.co_kwonlyargcount, list(code.co_varnames)
    given = names[: count + more]
    if code.co_name.startswith("<") or function is None or any(name not in scope for name in given):
        return called
    called.function, rest = function, names[count + more :]
    called.args = [scope[name] for name in names[:count]]
    called.kwargs = {name: scope[name] for name in given[count:]}
    if code.co_flags & CO_VARARGS:
        called.args += scope.get(rest.pop(0), ())
    if code.co_flags & CO_VARKEYWORDS:
        called.kwargs |= scope.get(rest.pop(0), {})
    return called


def _made(function: Any, frame: FrameType) -> bool:
    """Whether this is the function of a frame: of its code, and of what it closes over."""
    if not isinstance(function, FunctionType) or function.__code__ is not frame.f_code:
        return False
    cells = zip(frame.f_code.co_freevars, function.__closure__ or (), strict=True)
    try:
        return all(cell.cell_contents is frame.f_locals.get(name) for name, cell in cells)
    except ValueError:  # a cell that holds nothing yet
        return False
