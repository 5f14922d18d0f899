"""Where in a script something happens."""

from __future__ import annotations

import ast
from types import FrameType
from typing import TYPE_CHECKING

from mlxstories.ladder.where.places import Line, parsed, user_frames

if TYPE_CHECKING:
    from mlxstories.ladder.capture.record import Seen


def below(lines: list[Line], seen: Seen) -> Line | None:
    """The first line of a call that is not also on the way to the training loop; for training's own loss, when
    validation uses it, the line that calls it."""
    depth, loop = 0, seen.gradient
    while depth < min(len(lines), len(loop)) and lines[depth][::2] == loop[depth][::2]:
        depth += 1
    if 0 < depth < len(lines) and seen.loss is not None and lines[depth][::2] == seen.loss[::2]:
        depth -= 1
    return next(iter(lines[depth:]), lines[-1] if lines else None)


def holder(frame: FrameType | None, values: list) -> Line | None:
    """The outermost of the user's lines whose function has one of these very objects at hand."""
    found, wanted = None, {id(value) for value in values}
    for own in user_frames(frame):
        seen = [item for value in own.f_locals.values() for item in near(value)]
        if found is None or any(id(value) in wanted for value in seen):
            found = Line(own.f_code.co_filename, own.f_lineno, own.f_code.co_name)
    return found


def near(value) -> list:
    """A value, and what a dictionary or a short list of it holds."""
    if type(value) is dict:
        return [value, *value.values()]
    return [value, *value] if type(value) in (tuple, list) and len(value) < 8 else [value]


def assigned(frame: FrameType | None, value) -> Line | None:
    """The line that assigns this very object to the name under which the user's frames know it."""
    for own in user_frames(frame):
        code, scope = own.f_code, {**own.f_globals, **own.f_locals}
        name = next((n for n, v in scope.items() if v is value), None)
        lines = [i for i in _assignments(code.co_filename, name) if i] if name else []
        if lines:
            return Line(code.co_filename, lines[-1], code.co_name)
    return None


def _assignments(file: str, name: str) -> list[int]:
    targets = [
        (node.lineno, target)
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.Assign)
        for target in node.targets
    ]
    return [line for line, target in targets if isinstance(target, ast.Name) and target.id == name]
