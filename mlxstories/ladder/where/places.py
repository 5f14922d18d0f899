"""Lines of the code that is examined, and findings' ``where``."""

from __future__ import annotations

import ast
import inspect
import os
import sysconfig
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from types import CodeType, FrameType
from typing import NamedTuple

from mlxstories.errors import StoriesError
from mlxstories.findings import Place
from mlxstories.findings.notebooks import python_of
from mlxstories.findings.place import spot

_OURS = Path(__file__).parents[2]
_LIBRARIES = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
_NOT_OWN = tuple(f"{folder}{os.sep}" for folder in (_OURS, *_LIBRARIES))
_INSTALLED = ("site-packages", "dist-packages")  # Debian's name for it
_EXAMINED = tuple(str(_OURS / room) + os.sep for room in ("model", "faults"))


class Line(NamedTuple):
    """A line of the user's code, and the function it is in; of a notebook, a line of `python_of` it."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return spot(self.file, self.line)


def place(line: Line | None, module: str | None = None) -> Place | None:
    """A line as a finding's ``where``."""
    if line is None:
        return None
    return Place.at(line.file, line.line, **({"module": module} if module else {}))


def own_file(name: str) -> bool:
    """Whether a file of Python code is the user's: not a library's, and not ours."""
    return not name.startswith(("<", *_NOT_OWN)) and not any(folder in name for folder in _INSTALLED)


def of_model(name: str) -> bool:
    """Whether a file can hold the code of a model that is examined: the user's, or that of our own models."""
    return own_file(name) or name.startswith(_EXAMINED)


def frames(frame: FrameType | None) -> Iterator[FrameType]:
    """This frame and those around it, outwards."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def user_frames(frame: FrameType | None, counts: Callable[[str], bool] = own_file) -> Iterator[FrameType]:
    """The frames of the user's own code from this one outwards."""
    return (own for own in frames(frame) if counts(own.f_code.co_filename))


def stack(frame: FrameType | None, counts: Callable[[str], bool] = own_file) -> list[Line]:
    """The user's own lines on the way to a frame, the outermost first."""
    return [
        Line(own.f_code.co_filename, own.f_lineno, own.f_code.co_name) for own in user_frames(frame, counts)
    ][::-1]


def defined(function: Callable) -> Line | None:
    """The line that defines a function of the user's, also of a partial, a method or an object that is called."""
    function = inspect.unwrap(getattr(function, "func", function))
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    return line_of(code) if isinstance(code, CodeType) and own_file(code.co_filename) else None


def line_of(code: CodeType) -> Line:
    """Where a function begins."""
    return Line(code.co_filename, code.co_firstlineno, code.co_name)


def class_line(cls: type) -> Line | None:
    """The line of a class definition, of the first class among its bases that is the user's."""
    return _in_bases(cls, lambda definition: definition.lineno)


def assigned_in(cls: type, name: str) -> Line | None:
    """The line at which a class of the user's assigns ``self.name``, the last one if there are several."""

    def last(definition: ast.ClassDef) -> int | None:
        lines = [node.lineno for node in ast.walk(definition) if _assigns(node, name)]
        return lines[-1] if lines else None

    return _in_bases(cls, last)


def keyed_in(cls: type, key: str) -> Line | None:
    """The first line of a user's class, outside its ``__init__``, where an entry of this name is read or set."""

    def first(definition: ast.ClassDef) -> int | None:
        methods = [n for n in definition.body if isinstance(n, ast.FunctionDef) and "init" not in n.name]
        lines = (node.lineno for method in methods for node in ast.walk(method) if _takes(node, key))
        return min(lines, default=None)

    return _in_bases(cls, first)


def updated_in(cls: type) -> Line | None:
    """The line at which an optimiser's class of the user's returns the new weights."""

    def last(definition: ast.ClassDef) -> int | None:
        steps = [n for n in definition.body if getattr(n, "name", "") == "apply_single"]
        lines = (node.lineno for step in steps for node in ast.walk(step) if isinstance(node, ast.Return))
        return max(lines, default=None)

    return _in_bases(cls, last)


def _in_bases(cls: type, line_of: Callable[[ast.ClassDef], int | None]) -> Line | None:
    """The line that is found in the first of its bases that is the user's and has one."""
    for base in cls.__mro__:
        found = _source(base)
        if found is not None and (line := line_of(found[1])) is not None:
            return Line(found[0], line, base.__name__)
    return None


def _assigns(node: ast.AST, name: str) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    targets = [part for target in targets for part in getattr(target, "elts", [target])]
    return any(
        isinstance(target, ast.Attribute)
        and target.attr == name
        and getattr(target.value, "id", "") == "self"
        for target in targets
    )


def _takes(node: ast.AST, key: str) -> bool:
    return isinstance(node, ast.Subscript) and getattr(node.slice, "value", None) == key


@lru_cache(256)
def _source(cls: type) -> tuple[str, ast.ClassDef] | None:
    """The file of a class of the user's, and its definition there."""
    # From its functions, for a script's ``__main__`` is no module that `inspect` could ask.
    codes = [c for f in vars(cls).values() if (c := getattr(f, "__code__", None)) and of_model(c.co_filename)]
    for code in codes:
        for node in ast.walk(parsed(code.co_filename)):
            own = isinstance(node, ast.ClassDef) and node.name == cls.__name__
            if own and node.lineno <= code.co_firstlineno <= (node.end_lineno or 0):
                return code.co_filename, node
    return None


@lru_cache(64)
def parsed(file: str) -> ast.AST:
    """The syntax tree of a file; an empty one where its source is lost."""
    try:
        return ast.parse(python_of(file))
    except (OSError, StoriesError, SyntaxError, ValueError):
        return ast.Module([], [])
