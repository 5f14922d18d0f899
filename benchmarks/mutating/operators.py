"""Operators that make one small mistake in Python source: each place where one applies is a mutation.

After the operators of DeepCrime (Humbatova et al. 2021: rates, activations, weights' regularisation, parts of the
data) and of syntactic mutation testing, for what people get wrong in models and training loops written by hand.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

Edit = tuple[ast.AST, ast.AST]
"""A node and what stands there instead."""

OPERATORS: dict[str, Callable[[ast.AST], Iterator[Edit]]] = {}

_OPPOSITE = {
    ast.Lt: ast.Gt,
    ast.Gt: ast.Lt,
    ast.LtE: ast.GtE,
    ast.GtE: ast.LtE,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}
_STRICT = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
_ORDERED = (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod, ast.MatMult, ast.Pow)
_INDEXING = {"range", "arange", "tril", "triu", "split", "islice", "diag", "eye"}
_LIBRARIES = {
    "mx",
    "nn",
    "np",
    "optim",
    "math",
    "mlx",
    "numpy",
    "random",
    "os",
    "re",
    "json",
    "functools",
    "itertools",
}
_OTHER = {
    "print",
    "super",
    "isinstance",
    "getattr",
    "setattr",
    "hasattr",
    "type",
    "open",
    "len",
    "Path",
    "sorted",
    "set",
}
_LARGE = 100  # integers from which one is a size or a base, not a count or an index
_PLAIN = (
    ast.Constant,
    ast.Tuple,
    ast.List,
    ast.Dict,
    ast.Lambda,
    ast.ListComp,
    ast.GeneratorExp,
    ast.JoinedStr,
)


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
    if (
        isinstance(node, ast.UnaryOp)
        and isinstance(node.op, ast.USub)
        and not isinstance(node.operand, ast.Constant)
    ):
        yield node, node.operand


@operator
def shift(node: ast.AST) -> Iterator[Edit]:
    """An index, a bound or a length moved by one."""
    inside: list[ast.AST | None] = []
    if isinstance(node, ast.Slice):
        inside = [node.lower, node.upper]
    elif isinstance(node, ast.Subscript):
        inside = [node.slice]
    elif isinstance(node, ast.Call) and name_of(node) in _INDEXING:
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
    if isinstance(node, ast.Call) and len(node.args) >= 2 and name_of(node) not in _OTHER:
        first, second, *rest = node.args
        yield node, ast.Call(node.func, [second, first, *rest], node.keywords)


@operator
def argument_left_out(node: ast.AST) -> Iterator[Edit]:
    if not isinstance(node, ast.Call) or name_of(node) in _OTHER:
        return
    for index in range(len(node.keywords)):
        kept = node.keywords[:index] + node.keywords[index + 1 :]
        yield node, ast.Call(node.func, node.args, kept)
    if len(node.args) >= 2:
        yield node, ast.Call(node.func, node.args[:-1], node.keywords)


@operator
def unwrapped(node: ast.AST) -> Iterator[Edit]:
    """``f(x)`` becomes ``x``, and ``x.f()`` too."""
    if not isinstance(node, ast.Call) or name_of(node) in _OTHER or _constructs(node):
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
        if _constructs(node.value):
            return
        function = ast.Attribute(ast.Name("mx", ast.Load()), "stop_gradient", ast.Load())
        yield node.value, ast.Call(function, [node.value], [])


@operator
def mode(node: ast.AST) -> Iterator[Edit]:
    """A switch between training and evaluation left out, or any truth value turned."""
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield node, ast.Constant(not node.value)
    if _switches(node):
        yield node, ast.Pass()


@operator
def state(node: ast.AST) -> Iterator[Edit]:
    """What a call makes of a value is not kept."""
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
        given = {part.id for part in ast.walk(node.value) if isinstance(part, ast.Name)}
        targets = {
            part.id for target in node.targets for part in ast.walk(target) if isinstance(part, ast.Name)
        }
        if targets & given:
            yield node, ast.Expr(node.value)


@operator
def statement_deleted(node: ast.AST) -> Iterator[Edit]:
    call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    held = isinstance(node, ast.Assign) and not isinstance(node.targets[0], (ast.Name, ast.Tuple))
    if (call and not _switches(node)) or held or isinstance(node, ast.AugAssign):
        yield node, ast.Pass()


def _constructs(node: ast.AST) -> bool:
    """Whether it makes a layer, an optimiser or another object, which stands for no array."""
    return isinstance(node, ast.Call) and name_of(node)[:1].isupper()


def _switches(node: ast.AST) -> bool:
    """Whether a statement is ``model.train()`` or ``model.eval()``."""
    call = node.value if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) else None
    return call is not None and name_of(call) in ("train", "eval") and _root(call.func) not in _LIBRARIES


def name_of(call: ast.Call) -> str:
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
