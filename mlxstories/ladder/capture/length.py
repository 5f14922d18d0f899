"""How long a script's training will be, and whether it does something else every so often, read from its loops."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise
from math import prod
from types import FrameType
from typing import Any

from mlxstories.ladder.where.places import parsed, user_frames

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_READ = (
    ast.Name,
    ast.Attribute,
    ast.Constant,
    ast.BinOp,
    ast.UnaryOp,
    ast.operator,
    ast.unaryop,
    ast.expr_context,
)
_CALLED = {"range": range, "len": len, "min": min, "max": max, "int": int}


def rounds(frame: FrameType | None) -> int | None:
    """How often the loops of the user's frames pass this place, if each of them says so before it begins; None where
    one does not or may be left early, or there is no loop."""
    counts: list[int | None] = []
    for own in user_frames(frame):
        counts += [_rounds(loop, own) for loop in _around(own)]
    known = [count for count in counts if count is not None]
    return prod(known) if known and len(known) == len(counts) else None


def seldom(frame: FrameType | None) -> bool:
    """Whether the loops of the user's frames do something only every so many rounds, such as validation: under an
    ``if`` with a remainder, or after an inner loop."""
    for own in user_frames(frame):
        loops = list(_around(own))
        inner = any(
            isinstance(node, ast.For) and node is not outer.body[-1] for outer, node in pairwise(loops)
        )
        if inner or any(_now_and_then(node) for loop in loops for node in ast.walk(loop)):
            return True
    return False


def _now_and_then(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and any(
        isinstance(part, ast.BinOp) and isinstance(part.op, ast.Mod) for part in ast.walk(node.test)
    )


def _around(frame: FrameType) -> Iterator[ast.For | ast.While]:
    """The loops of the frame's function around its line."""
    line = frame.f_lineno
    nodes: list[ast.AST] = [parsed(frame.f_code.co_filename)]
    while nodes:
        inside = [
            child
            for node in nodes
            for child in ast.iter_child_nodes(node)
            if getattr(child, "lineno", 0) <= line <= (getattr(child, "end_lineno", None) or 0)
        ]
        yield from (
            node for node in inside if isinstance(node, (ast.For, ast.While)) and _in_body(node, line)
        )
        nodes = inside


def _in_body(loop: ast.For | ast.While, line: int) -> bool:
    return loop.body[0].lineno <= line <= (loop.body[-1].end_lineno or 0)


def _rounds(loop: ast.For | ast.While, frame: FrameType) -> int | None:
    if isinstance(loop, ast.While) or any(_left_early(node) for node in loop.body):
        return None
    over = loop.iter
    if isinstance(over, ast.Call) and getattr(over.func, "id", "") not in _CALLED and over.args:
        over = over.args[0]  # of tqdm, enumerate and the like
    try:
        return len(_value(over, frame))
    except Exception:  # it is no range and no list, or is made by code of the script's own
        return None


def _left_early(node: ast.AST) -> bool:
    if isinstance(node, (ast.Break, ast.Return)):
        return True
    if isinstance(node, (ast.For, ast.While)):  # its own break leaves it alone
        return any(isinstance(n, ast.Return) for n in ast.walk(node))
    return not isinstance(node, _FUNCTIONS) and any(
        _left_early(child) for child in ast.iter_child_nodes(node)
    )


def _value(node: ast.AST, frame: FrameType) -> Any:
    """A name, an attribute, arithmetic, or a range or length of these; nothing else is evaluated."""
    if isinstance(node, ast.Call):
        arguments = [_value(argument, frame) for argument in node.args]
        return _CALLED[getattr(node.func, "id", "")](*arguments)
    if not all(isinstance(part, _READ) for part in ast.walk(node)):
        raise ValueError("made by a call")
    source = compile(ast.Expression(node), "<loop>", "eval")
    return eval(source, {"__builtins__": {}, **frame.f_globals}, dict(frame.f_locals))
