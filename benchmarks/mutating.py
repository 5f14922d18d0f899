"""Operators that make one small mistake in Python source: each place where one applies is a mutation.

After the operators of DeepCrime (Humbatova et al. 2021: rates, activations, weights' regularisation, parts of the
data) and of syntactic mutation testing, for what people get wrong in models and training loops written by hand.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

Edit = tuple[ast.AST, ast.AST]
"""A node and what stands there instead."""

OPERATORS: dict[str, Callable[[ast.AST], Iterator[Edit]]] = {}

_OPPOSITE = {ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
_STRICT = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
_ORDERED = (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod, ast.MatMult, ast.Pow)
_INDEXING = {"range", "arange", "tril", "triu", "split", "islice", "diag", "eye"}
_LIBRARIES = {"mx", "nn", "np", "optim", "math", "mlx", "numpy", "random", "os", "re", "json", "functools", "itertools"}
_OTHER = {"print", "super", "isinstance", "getattr", "setattr", "hasattr", "type", "open", "len", "Path", "sorted", "set"}
_LARGE = 100  # integers from which one is a size or a base, not a count or an index
_PLAIN = (ast.Constant, ast.Tuple, ast.List, ast.Dict, ast.Lambda, ast.ListComp, ast.GeneratorExp, ast.JoinedStr)
_LEFT_OUT = (ast.Import, ast.ImportFrom, ast.Assert, ast.Raise, ast.JoinedStr, ast.Global, ast.Nonlocal)


@dataclass(frozen=True)
class Mutation:
    """One mistake.

    Attributes:
        operator: one of `OPERATORS`.
        line: where it starts, in the source as in the mutated one.
        before, after: what was replaced, and by what.
        source: the whole mutated file.
    """

    operator: str
    line: int
    before: str
    after: str
    source: str


def operator(function: Callable[[ast.AST], Iterator[Edit]]) -> Callable[[ast.AST], Iterator[Edit]]:
    OPERATORS[function.__name__.replace("_", " ")] = function
    return function


@operator
def axis(node: ast.AST) -> Iterator[Edit]:
    if isinstance(node, ast.keyword) and node.arg == "axis" and (value := _integer(node.value)) is not None:
        yield node.value, _number({-1: -2, -2: -1, 0: 1}.get(value, value - 1))


@operator
def sign(node: ast.AST) -> Iterator[Edit]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
        other = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
        yield node, ast.BinOp(node.left, other, node.right)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
        yield node, node.operand


@operator
def shift(node: ast.AST) -> Iterator[Edit]:
    """An index, a bound or a length moved by one."""
    inside: list[ast.AST | None] = []
    if isinstance(node, ast.Slice):
        inside = [node.lower, node.upper]
    elif isinstance(node, ast.Subscript):
        inside = [node.slice]
    elif isinstance(node, ast.Call) and _name(node) in _INDEXING:
        inside = [*node.args, *(k.value for k in node.keywords)]
    elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
        inside = [node.right]
    for part in inside:
        value = _integer(part)
        if value is not None:
            yield part, _number(value + 1)
            yield part, _number(value - 1)
        elif part is not None and isinstance(node, ast.Slice):
            yield part, ast.BinOp(part, ast.Sub(), ast.Constant(1))


@operator
def scale(node: ast.AST) -> Iterator[Edit]:
    """A number ten times larger or smaller."""
    if not isinstance(node, ast.Constant) or isinstance(node.value, bool):
        return
    if isinstance(node.value, float) and node.value:
        yield node, ast.Constant(float(f"{node.value * 10:.6g}"))
        yield node, ast.Constant(float(f"{node.value / 10:.6g}"))
    elif isinstance(node.value, int) and node.value >= _LARGE:
        yield node, ast.Constant(node.value * 10)
        yield node, ast.Constant(node.value // 10)


@operator
def swapped(node: ast.AST) -> Iterator[Edit]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, _ORDERED):
        yield node, ast.BinOp(node.right, node.op, node.left)
    if isinstance(node, ast.Call) and len(node.args) >= 2 and _name(node) not in _OTHER:
        first, second, *rest = node.args
        yield node, ast.Call(node.func, [second, first, *rest], node.keywords)


@operator
def argument_left_out(node: ast.AST) -> Iterator[Edit]:
    if not isinstance(node, ast.Call) or _name(node) in _OTHER:
        return
    for index in range(len(node.keywords)):
        kept = node.keywords[:index] + node.keywords[index + 1 :]
        yield node, ast.Call(node.func, node.args, kept)
    if len(node.args) >= 2:
        yield node, ast.Call(node.func, node.args[:-1], node.keywords)


@operator
def unwrapped(node: ast.AST) -> Iterator[Edit]:
    """``f(x)`` becomes ``x``, and ``x.f()`` too."""
    if not isinstance(node, ast.Call) or _name(node) in _OTHER:
        return
    if node.args and not isinstance(node.args[0], (ast.Starred, ast.GeneratorExp, ast.Lambda)):
        yield node, node.args[0]
    if isinstance(node.func, ast.Attribute) and _root(node.func) not in _LIBRARIES | {"self"}:
        yield node, node.func.value


@operator
def term_dropped(node: ast.AST) -> Iterator[Edit]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub, ast.Mult, ast.Div)):
        yield node, node.left
        if isinstance(node.op, (ast.Add, ast.Mult)):
            yield node, node.right


@operator
def comparison(node: ast.AST) -> Iterator[Edit]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        for table in (_OPPOSITE, _STRICT):
            if (other := table.get(type(node.ops[0]))) is not None:
                yield node, ast.Compare(node.left, [other()], node.comparators)
    if isinstance(node, (ast.If, ast.IfExp, ast.While)):
        yield node.test, ast.UnaryOp(ast.Not(), node.test)


@operator
def stop_gradient(node: ast.AST) -> Iterator[Edit]:
    if isinstance(node, (ast.Return, ast.Assign)) and node.value and not isinstance(node.value, _PLAIN):
        function = ast.Attribute(ast.Name("mx", ast.Load()), "stop_gradient", ast.Load())
        yield node.value, ast.Call(function, [node.value], [])


@operator
def mode(node: ast.AST) -> Iterator[Edit]:
    """A switch between training and evaluation left out, or any truth value turned."""
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield node, ast.Constant(not node.value)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        if _name(node.value) in ("train", "eval") and _root(node.value.func) not in _LIBRARIES:
            yield node, ast.Pass()


@operator
def state(node: ast.AST) -> Iterator[Edit]:
    """What a call makes of a value is not kept."""
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
        given = {part.id for part in ast.walk(node.value) if isinstance(part, ast.Name)}
        targets = {part.id for target in node.targets for part in ast.walk(target) if isinstance(part, ast.Name)}
        if targets & given:
            yield node, ast.Expr(node.value)


@operator
def statement_deleted(node: ast.AST) -> Iterator[Edit]:
    call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    held = isinstance(node, ast.Assign) and not isinstance(node.targets[0], (ast.Name, ast.Tuple))
    if call or held or isinstance(node, ast.AugAssign):
        yield node, ast.Pass()


def mutations(
    source: str, lines: Mapping[int, set[str]], rng: random.Random
) -> Iterator[Mutation]:
    """Mutations of a file in random order, all operators alike.

    Args:
        lines: those that are run, with the parts of the setup that run them; others stay as they are.
    """
    tree = ast.parse(source)
    places: dict[str, list[tuple[Edit, tuple]]] = {}
    for node, slots in _reached(tree, lines):
        for name, function in OPERATORS.items():
            if name == "stop gradient" and not lines.get(node.lineno, set()) & {"model", "loss"}:
                continue
            places.setdefault(name, []).extend((edit, slots[edit[0]]) for edit in function(node) if edit[0] in slots)
    seen = {source}
    while places:
        name = rng.choice(sorted(places))
        edit, slot = places[name].pop(rng.randrange(len(places[name]))) if places[name] else (None, None)
        if edit is None:
            del places[name]
            continue
        mutated = applied(source, tree, edit, slot)
        if mutated is None or mutated in seen:
            continue
        seen.add(mutated)
        before = ast.get_source_segment(source, edit[0]) or ""
        yield Mutation(name, edit[0].lineno, before, ast.unparse(edit[1]), mutated)


def applied(source: str, tree: ast.Module, edit: Edit, slot: tuple) -> str | None:
    """The source with one node replaced and all else as it was written; None where that cannot be."""
    node, new = edit
    wanted = _dump(tree, slot, new)
    lines = source.encode().splitlines(keepends=True)
    start = sum(map(len, lines[: node.lineno - 1])) + node.col_offset
    end = sum(map(len, lines[: node.end_lineno - 1])) + node.end_col_offset
    raw, text = source.encode(), ast.unparse(new)
    lost = "\n" * (node.end_lineno - node.lineno - text.count("\n"))  # so that the lines below keep their numbers
    for form in (f"{text}{lost}", f"({text})", text):
        mutated = (raw[:start] + form.encode() + raw[end:]).decode()
        try:
            if ast.dump(ast.parse(mutated)) == wanted:
                return mutated
        except SyntaxError:
            continue
    return None


def _dump(tree: ast.Module, slot: tuple, new: ast.AST) -> str:
    """The tree with the node of a slot replaced, as text; the tree itself is left as it was."""
    parent, field, index = slot
    held = getattr(parent, field)
    if index is None:
        setattr(parent, field, new)
    else:
        setattr(parent, field, [*held[:index], new, *held[index + 1 :]])
    try:
        return ast.dump(tree)
    finally:
        setattr(parent, field, held)


def _reached(tree: ast.Module, lines: Mapping[int, set[str]]) -> Iterator[tuple[ast.AST, dict[ast.AST, tuple]]]:
    """Nodes of statements that are run, and where each node hangs."""
    slots: dict[ast.AST, tuple] = {}

    def walk(node: ast.AST, run: bool) -> Iterator[ast.AST]:
        for field, value in ast.iter_fields(node):
            for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if not isinstance(child, ast.AST) or field in ("decorator_list", "annotation", "returns", "bases"):
                    continue
                if isinstance(child, _LEFT_OUT) or _printed(child):
                    continue
                slots[child] = (node, field, index)
                here = child.lineno in lines if hasattr(child, "lineno") else run
                here = here or (run and not isinstance(child, ast.stmt))
                if here:
                    yield child
                yield from walk(child, here)

    found = [node for node in walk(tree, False) if hasattr(node, "lineno")]
    for node in found:
        yield node, slots


def _printed(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and _name(node.value) == "print"


def _name(call: ast.Call) -> str:
    """The last part of what is called."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _root(node: ast.AST) -> str:
    """The first name of a dotted one."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return getattr(node, "id", "")


def _integer(node: ast.AST | None) -> int | None:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _integer(node.operand)
        return None if value is None else -value
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    return None


def _number(value: int) -> ast.AST:
    return ast.Constant(value) if value >= 0 else ast.UnaryOp(ast.USub(), ast.Constant(-value))
