"""What a script holds, as Python source that makes it again: constants, configurations, optimisers, schedules."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import math
import sys
import textwrap
import types
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.optimizers import Optimizer

_MOST = 64  # items of a list that are written out


class Gap(Exception):
    """Something that cannot be written down; the message says what."""


@dataclasses.dataclass
class Making:
    """How an object was made: the object itself, and the arguments of its ``__init__``."""

    made: Any
    args: list[Any]
    kwargs: dict[str, Any]


def making(value: Any, frame: FrameType | None) -> Making:
    """Read from the frames of ``__init__`` of one object, of which this one is the innermost."""
    first = None
    while frame is not None and frame.f_code.co_name == "__init__":
        code = frame.f_code
        if not code.co_argcount or frame.f_locals.get(code.co_varnames[0]) is not value:
            break
        first, frame = frame, frame.f_back
    if first is None:
        return Making(value, [], {})
    code, own = first.f_code, first.f_locals
    names = list(code.co_varnames[1 : code.co_argcount])
    only = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    more = list(code.co_varnames[code.co_argcount + code.co_kwonlyargcount :])
    rest = own[more.pop(0)] if code.co_flags & inspect.CO_VARARGS else ()
    keywords = own[more.pop(0)] if code.co_flags & inspect.CO_VARKEYWORDS else {}
    if rest:
        return Making(value, [*(own[n] for n in names), *rest], {**{n: own[n] for n in only}, **keywords})
    defaults = inspect.signature(type(value).__init__).parameters
    named = {n: own[n] for n in (*names, *only) if n in own}
    told = {n: v for n, v in named.items() if n not in defaults or not _same(v, defaults[n].default)}
    return Making(value, [], {**told, **keywords})


def _same(value: Any, default: Any) -> bool:
    return value is default or (
        type(value) is type(default) and not isinstance(value, mx.array) and value == default
    )


class Expressions:
    """Writes values as source, with the names of the script under one name.

    Args:
        names: what the script defines at its top level.
        script: the name under which the written file knows them.
        makings: of modules and optimisers, by the id of the object.
    """

    def __init__(self, names: dict[str, Any], script: str, makings: dict[int, Making]):
        self.names, self.script, self.makings = names, script, makings

    def of(self, value: Any) -> str:
        """The source of a value.

        Raises:
            Gap: it has none.
        """
        for write in (self._plain, self._container, self.of_named, self._schedule, self._object):
            text = write(value)
            if text is not None:
                return text
        raise Gap(f"a {type(value).__name__}")

    def _plain(self, value: Any) -> str | None:
        if isinstance(value, float) and not math.isfinite(value):
            return f'float("{value}")'
        if value is None or isinstance(value, (bool, int, float, str, bytes)):
            if isinstance(value, (str, bytes)) and len(value) > 1000:
                raise Gap(f"a text of {len(value)} characters")
            return repr(value)
        if isinstance(value, mx.Dtype):
            return str(value).replace("mlx.core", "mx")
        if isinstance(value, mx.array) and value.size <= _MOST:
            return f"mx.array({value.tolist()!r}, {self.of(value.dtype)})"
        return None

    def _container(self, value: Any) -> str | None:
        if type(value) in (list, tuple, dict, set) and len(value) > _MOST:
            raise Gap(f"a {type(value).__name__} of {len(value)} items")
        if type(value) is list:
            return f"[{', '.join(map(self.of, value))}]"
        if type(value) is tuple:
            return f"({''.join(f'{self.of(item)}, ' for item in value)})"
        if type(value) is dict:
            return "{" + ", ".join(f"{self.of(key)}: {self.of(item)}" for key, item in value.items()) + "}"
        return None

    def of_named(self, value: Any) -> str | None:
        """A function or class that the script or a library defines."""
        if isinstance(value, partial):
            parts = [self.of(value.func), *map(self.of, value.args)]
            return f"partial({', '.join([*parts, *self._keywords(value.keywords)])})"
        if (known := getattr(value, "__name__", "")) and getattr(mx, known, None) is value:
            return f"mx.{known}"
        if not isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
            return None
        name = next((n for n, v in self.names.items() if v is value and n.isidentifier()), None)
        if name is not None:
            return f"{self.script}.{name}"
        if getattr(value, "__name__", "") == "<lambda>":
            return f"({self.of_lambda(value)})"
        module, path = getattr(value, "__module__", "") or "", value.__qualname__
        home = sys.modules.get(module)
        if "<locals>" in path or home is None or getattr(home, path, None) is not value:
            return None
        for prefix, short in (("mlx.optimizers", "optim"), ("mlx.nn", "nn"), ("mlx.core", "mx")):
            if module.startswith(prefix) and getattr(sys.modules[prefix], path, None) is value:
                return f"{short}.{path}"
        return f'import_module("{module}").{path}'

    def of_lambda(self, value: types.FunctionType) -> str:
        """The only lambda on its lines, if it uses nothing but its arguments and Python's builtins."""
        code = value.__code__
        if code.co_freevars or any(name in value.__globals__ for name in code.co_names):
            raise Gap("a lambda that sees other names")
        try:
            source = textwrap.dedent(inspect.getsource(value)).strip()
            found = [n for n in ast.walk(ast.parse(source.rstrip(","))) if isinstance(n, ast.Lambda)]
        except (OSError, SyntaxError):
            found = []
        if len(found) != 1:
            raise Gap("a lambda")
        return ast.unparse(found[0])

    def _schedule(self, value: Any) -> str | None:
        """A schedule of MLX, which is a closure over the arguments of its maker."""
        maker = getattr(sys.modules["mlx.optimizers"], getattr(value, "__qualname__", "").split(".")[0], None)
        if not isinstance(value, types.FunctionType) or maker is None or "<locals>" not in value.__qualname__:
            return None
        held = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        given = {name: cell.cell_contents for name, cell in held}
        wanted = [name for name in inspect.signature(maker).parameters if name in given]
        return f"optim.{maker.__name__}({', '.join(self._keywords({n: given[n] for n in wanted}))})"

    def _object(self, value: Any) -> str | None:
        if dataclasses.is_dataclass(value):
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
            return f"{self.of(type(value))}({', '.join(self._keywords(fields))})"
        if isinstance(value, (argparse.Namespace, types.SimpleNamespace)):
            return f"SimpleNamespace({', '.join(self._keywords(vars(value)))})"
        if isinstance(value, (nn.Module, Optimizer)):
            how = self.makings.get(id(value))
            if how is None or how.made is not value:
                raise Gap(f"a {type(value).__name__} that was made unseen")
            return self.call(type(value), how.args, how.kwargs)
        return None

    def call(self, function: Callable, args: list[Any], kwargs: dict[str, Any]) -> str:
        return f"{self.of(function)}({', '.join([*map(self.of, args), *self._keywords(kwargs)])})"

    def _keywords(self, values: dict[str, Any]) -> list[str]:
        written = []
        for name, value in values.items():
            try:
                written.append(f"{name}={self.of(value)}")
            except Gap as gap:
                raise Gap(f"{name}, {gap}") from gap
        return written
