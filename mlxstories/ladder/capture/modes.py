"""What a script's source says of evaluation mode, where its validation comes too late to be seen."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator

from mlxstories.ladder.where.places import Line, parsed

_HELD_OUT = re.compile(r"(?<![a-z])(val|valid|validat\w*|evaluat\w*|held.?out)(?![a-z])", re.I)
_LIBRARIES = ("mx", "core")  # whose eval() computes arrays


def validates_while_training(files: Collection[str]) -> Line | None:
    """The last line that speaks of held-out data, in the files of a script that never leaves training mode; None where
    it does, or speaks of none."""
    if any(_leaves_training(node) for file in files for node in ast.walk(parsed(file))):
        return None
    lines = [Line(file, line, "") for file in sorted(files) if (line := max(_held_out(file), default=0))]
    return lines[-1] if lines else None


def _leaves_training(node: ast.AST) -> bool:
    """``model.eval()``, ``model.train(False)``, or a flag of that name which is set or handed over."""
    if isinstance(node, ast.keyword):
        return node.arg in ("training", "train", "deterministic", "mode")
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        return node.attr in ("training", "_training")
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return False
    if node.func.attr == "eval":
        return getattr(node.func.value, "id", getattr(node.func.value, "attr", "")) not in _LIBRARIES
    return node.func.attr in ("train", "set_training") and bool(node.args)


def _held_out(file: str) -> Iterator[int]:
    """Lines with a text, a name or a function that says so."""
    for node in ast.walk(parsed(file)):
        words = (
            node.value if isinstance(node, ast.Constant) else getattr(node, "id", getattr(node, "name", ""))
        )
        if isinstance(words, str) and _HELD_OUT.search(words):
            yield node.lineno
