"""How long a script's training will be, and whether it does something else every so often, read from its loops."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise
from math import ceil, floor, prod
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
    leaving = [node for node in loop.body if _left_early(node) and not _switched_off(node, loop, frame)]
    try:
        if isinstance(loop, ast.While):
            return _counted(loop, leaving, frame)
        if leaving:
            return None
        over = loop.iter
        if isinstance(over, ast.Call) and getattr(over.func, "id", "") not in _CALLED and over.args:
            over = over.args[0]  # of tqdm, enumerate and the like
        return len(_value(over, frame))
    except Exception:  # it is no range, list or count, or is made by code of the script's own
        return None


def _switched_off(node: ast.AST, loop: ast.For | ast.While, frame: FrameType) -> bool:
    """Whether it is an ``if`` that asks, maybe beside other things, for a name that is False and stays so."""
    if not isinstance(node, ast.If) or node.orelse:
        return False
    all_of = isinstance(node.test, ast.BoolOp) and isinstance(node.test.op, ast.And)
    flags = [part for part in (node.test.values if all_of else [node.test]) if isinstance(part, ast.Name)]
    known = {**frame.f_globals, **frame.f_locals}
    return any(known.get(flag.id) is False and not _set_in(loop, flag) for flag in flags)


def _counted(loop: ast.While, leaving: list[ast.stmt], frame: FrameType) -> int | None:
    """Of ``while n < N``, or of ``while True`` with one ``if n >= N: break``, where each round adds the same to n."""
    leave = leaving[0] if leaving else None
    if leave is not None:
        endless = isinstance(loop.test, ast.Constant) and loop.test.value
        if len(leaving) > 1 or not endless or not isinstance(leave, ast.If) or leave.orelse:
            return None
        if not isinstance(leave.body[-1], ast.Break) or any(map(_left_early, leave.body[:-1])):
            return None
    test = loop.test if leave is None else leave.test
    if not isinstance(test, ast.Compare) or len(test.ops) > 1:
        return None
    steps = _set_in(loop, test.left)
    by = _added(steps[0], test.left) if len(steps) == 1 and steps[0] in loop.body else None
    if by is None or any(
        isinstance(part, ast.Name) and _set_in(loop, part)
        for end in (by, *test.comparators)
        for part in ast.walk(end)
    ):
        return None
    at, adds = frame.f_lineno, steps[0].lineno
    step, bound = _value(by, frame), _value(test.comparators[0], frame)
    start = _value(test.left, frame) - (step if adds < at else 0)
    left, operator = bound - start, type(test.ops[0])
    if not step > 0:
        return None
    if leave is None:
        found = {ast.Lt: ceil(left / step), ast.LtE: floor(left / step) + 1}.get(operator)
    else:
        left -= step if adds < leave.lineno else 0
        found = {ast.GtE: ceil(left / step) + 1, ast.Gt: floor(left / step) + 2}.get(operator)
        found = found and max(found, 1) - (leave.lineno < at)
    return found if found and found > 0 else None


def _set_in(loop: ast.For | ast.While, target: ast.expr) -> list[ast.stmt]:
    """The statements of a loop that set a name or an attribute."""
    name = ast.unparse(target)
    return [
        node
        for node in ast.walk(loop)
        if isinstance(node, ast.stmt)
        and any(
            isinstance(getattr(part, "ctx", None), ast.Store) and ast.unparse(part) == name
            for child in ast.iter_child_nodes(node)
            if not isinstance(child, ast.stmt)
            for part in ast.walk(child)
        )
    ]


def _added(node: ast.stmt, target: ast.expr) -> ast.expr | None:
    """What ``n += by`` or ``n = n + by`` adds."""
    if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
        return node.value
    value = node.value if isinstance(node, ast.Assign) else None
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add):
        return value.right if ast.unparse(value.left) == ast.unparse(target) else None
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
