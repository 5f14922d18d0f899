"""Where in the user's files something happens."""

from __future__ import annotations

import os
from types import FrameType
from typing import NamedTuple

from mlxstories.ladder.capture.running import own_file


class Line(NamedTuple):
    """A line of the user's code, and the function it is in."""

    file: str
    line: int
    function: str


class Place(dict):
    """``file`` and ``line``, and ``module`` where it is known; reads like ``train.py:33``."""

    def __str__(self) -> str:
        place = f"{os.path.relpath(self['file'])}:{self['line']}"
        return f"{place} ({self['module']})" if self.get("module") else place

    def __hash__(self) -> int:
        return hash(str(self))


def place(line: Line | None, module: str | None = None) -> Place | None:
    """A line as a finding's ``where``."""
    if line is None:
        return None
    return Place(file=line.file, line=line.line, **({"module": module} if module else {}))


def stack(frame: FrameType | None) -> list[Line]:
    """The user's own lines on the way to a frame, the outermost first."""
    lines: list[Line] = []
    while frame is not None:
        code = frame.f_code
        if own_file(code.co_filename):
            lines.append(Line(code.co_filename, frame.f_lineno, code.co_name))
        frame = frame.f_back
    return lines[::-1]


def below(lines: list[Line], loop: list[Line]) -> Line | None:
    """The first line of a call that is not on the way to the training loop as well."""
    depth = 0
    while depth < min(len(lines), len(loop)) and lines[depth][::2] == loop[depth][::2]:
        depth += 1
    return next(iter(lines[depth:]), lines[-1] if lines else None)
