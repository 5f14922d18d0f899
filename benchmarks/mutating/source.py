"""Mutations of a source file: operators applied where its lines are run, all else left as it was written."""

from __future__ import annotations

import ast
import difflib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mutating.operators import OPERATORS, Edit, name_of

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


def mutations(
    source: str, lines: Mapping[int, set[str]], rng: random.Random, seen: set[str] | None = None
) -> Iterator[Mutation]:
    """Mutations of a file in random order, all parts alike, and in each part all operators alike.

    Args:
        lines: those that may be mutated, with the parts of the setup that run them; others stay as they are.
        seen: sources that are left out; what is yielded is added.
    """
    tree, seen = ast.parse(source), set() if seen is None else seen
    places: dict[str, dict[str, list[tuple[Edit, tuple]]]] = {}
    for node, slots in _reached(tree, lines):
        here = lines.get(node.lineno, {"step"})
        for name, function in OPERATORS.items():
            if name == "stop gradient" and not here & {"model", "loss"}:
                continue
            edits = [(edit, slots[edit[0]]) for edit in function(node) if edit[0] in slots]
            for part in here if edits else ():
                places.setdefault(part, {}).setdefault(name, []).extend(edits)
    while places:
        part = rng.choice(sorted(places))
        name = rng.choice(sorted(places[part]))
        found = places[part][name]
        edit, slot = found.pop(rng.randrange(len(found)))
        if not found:
            del places[part][name]
        if not places[part]:
            del places[part]
        mutated = applied(source, tree, edit, slot)
        if mutated is None or mutated == source or mutated in seen:
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
    # so that the lines below keep their numbers
    lost = "\n" * (node.end_lineno - node.lineno - text.count("\n"))
    for form in (f"{text}{lost}", f"({text})", text):
        mutated = (raw[:start] + form.encode() + raw[end:]).decode()
        try:
            if ast.dump(ast.parse(mutated)) == wanted:
                return mutated
        except SyntaxError:
            continue
    return None


def difference(before: str, after: str) -> list[str]:
    """The lines that differ, as a diff has them."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return [line for line in list(lines)[2:] if line[0] in "+-" and line[1:].strip()]


def remade(source: str, diff: list[str], line: int) -> str | None:
    """The mutated source again, from what `difference` found and the mutation's line; None where it is not of this
    source."""
    before, after = ([text[1:] for text in diff if text[0] == sign] for sign in "-+")
    lines = source.splitlines()
    places = [i for i in range(len(lines)) if lines[i : i + len(before)] == before]
    if not places:
        return None
    start = min(places, key=lambda i: abs(i + 1 - line))
    lost = [""] * (len(before) - len(after))  # so that the lines below keep their numbers
    return "\n".join([*lines[:start], *after, *lost, *lines[start + len(before) :]]) + "\n"


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


def _reached(
    tree: ast.Module, lines: Mapping[int, set[str]]
) -> Iterator[tuple[ast.AST, dict[ast.AST, tuple]]]:
    """Nodes of statements that are run, and where each node hangs."""
    slots: dict[ast.AST, tuple] = {}

    def walk(node: ast.AST, run: bool) -> Iterator[ast.AST]:
        for field, value in ast.iter_fields(node):
            for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if not isinstance(child, ast.AST) or field in (
                    "decorator_list",
                    "annotation",
                    "returns",
                    "bases",
                ):
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
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and name_of(node.value) == "print"
