"""One forward pass, call by call: what went into each module and came out, from which line, and how it was made."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlxstories.ladder.patches import Patches
from mlxstories.ladder.where.places import Line, of_model, stack


@dataclass(eq=False)
class Call:
    """One call of a module.

    Attributes:
        before, after: the arrays that it was given and that it returned.
        args, kwargs: all that it was given.
        lines: of the examined code on the way to it, the call itself last.
        parent: the call within which it was made.
    """

    module: nn.Module
    before: list[mx.array]
    lines: list[Line]
    parent: Call | None
    args: tuple = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    after: list[mx.array] = field(default_factory=list)

    def within(self) -> Iterator[Call]:
        """The calls around this one, nearest first."""
        call = self.parent
        while call is not None:
            yield call
            call = call.parent


def arrays(value: Any) -> list[mx.array]:
    """The arrays in dicts, lists and tuples."""
    if isinstance(value, mx.array):
        return [value]
    if type(value) is dict:
        value = list(value.values())
    return [a for item in value for a in arrays(item)] if isinstance(value, (list, tuple)) else []


def calls(
    model: nn.Module, ids: mx.array, change: Callable[[int, Any], Any] = lambda index, out: out
) -> list[Call]:
    """Every call of a module in ``model(ids)``, in the order in which they end: the inner ones first.

    ``change`` is given the number of each call and what it returns, and returns what is handed on instead.
    """
    done: list[Call] = []
    open_: list[Call] = []

    def watched(real: Callable) -> Callable:
        def call(module, *args, **kwargs):
            lines = stack(sys._getframe(1), of_model)
            given = arrays([*args, *kwargs.values()])
            inner = Call(module, given, lines, open_[-1] if open_ else None, args, kwargs)
            open_.append(inner)
            try:
                out = real(module, *args, **kwargs)
                out = change(len(done), out)
            finally:
                open_.pop()
            inner.after = arrays(out)
            done.append(inner)
            return out

        return call

    with Patches() as patches:
        for cls in {base for module in model.modules() for base in type(module).__mro__}:
            if "__call__" in vars(cls) and issubclass(cls, nn.Module):
                patches.replace(cls, "__call__", watched(vars(cls)["__call__"]))
        model(ids)
    return done


Step = tuple[Line, dict[str, list[mx.array]]]


def steps(model: nn.Module, call: Call, nth: int, ids: mx.array) -> list[Step]:
    """The arrays that the ``nth`` call of a module assigns to variables or returns, line by line, in its own code and
    in the functions that it calls, down to the next module."""
    tracer = _Tracer(call.module, nth)
    with traced(tracer.enter):
        model(ids)
    return tracer.steps


@contextmanager
def traced(entered: Callable) -> Iterator[None]:
    """Python's trace function is another one; see `sys.settrace`."""
    kept = sys.gettrace()
    sys.settrace(entered)
    try:
        yield
    finally:
        sys.settrace(kept)


class _Tracer:
    """Follows the frames of one call of a module, and leaves out those of the modules within it."""

    def __init__(self, module: nn.Module, nth: int):
        self.module, self.left = module, nth
        self.steps: list[Step] = []
        self.inside, self.deeper = False, 0

    def enter(self, frame: FrameType, event: str, _):
        own = self._module_of(frame)
        if not self.inside:
            if own is None or own is not self.module:  # None once the call is over
                return None
            self.left -= 1
            if self.left >= 0:
                return None
            if not of_model(frame.f_code.co_filename):
                return None
            self.inside = True
            return self._follow(frame, last=True)
        if self.deeper:
            return None
        if own is not None and own is not self.module:
            self.deeper += 1
            return self._passed_over
        return self._follow(frame) if of_model(frame.f_code.co_filename) else None

    @staticmethod
    def _module_of(frame: FrameType) -> nn.Module | None:
        """The module whose ``__call__`` this frame is."""
        code = frame.f_code
        if code.co_name != "__call__" or not code.co_argcount:
            return None
        own = frame.f_locals.get(code.co_varnames[0])
        return own if isinstance(own, nn.Module) else None

    def _passed_over(self, frame: FrameType, event: str, _):
        if event == "return":
            self.deeper -= 1
        return self._passed_over

    def _follow(self, frame: FrameType, last: bool = False):
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        known: dict[str, Any] = dict(frame.f_locals)
        line: int | None = None
        caller = frame.f_back
        if not last and caller is not None and of_model(caller.f_code.co_filename):
            self._take(Line(caller.f_code.co_filename, caller.f_lineno, caller.f_code.co_name), known)

        def trace(frame: FrameType, event: str, value):
            nonlocal line
            new = {n: v for n, v in frame.f_locals.items() if known.get(n) is not v}
            known.update(new)
            self._take(Line(file, line or frame.f_lineno, name), new)
            line = frame.f_lineno
            if event == "return":
                self._take(Line(file, line, name), {"return": value})
                if last:
                    self.inside, self.module = False, None
            return trace

        return trace

    def _take(self, line: Line, values: dict[str, Any]) -> None:
        held = {name: arrays(value) for name, value in values.items() if not isinstance(value, nn.Module)}
        held = {name: found for name, found in held.items() if found}
        if held:
            self.steps.append((line, held))
