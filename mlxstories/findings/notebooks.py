"""Notebooks as Python: their code cells in order, and the cell that a line belongs to."""

from __future__ import annotations

import ast
import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mlxstories.errors import StoriesError

_MEASURES = {"time", "timeit", "prun", "capture"}  # what follows these magics is Python, and runs
_ASSIGNED = re.compile(r"(?P<names>\s*\w+(\s*,\s*\w+)*\s*=\s*)[!%].*")  # to what a command prints, say
_LINE = re.compile(r"(?P<indent>\s*)(%(?P<magic>\w+)\s*(?P<rest>.*)|[!?].*|.*\?\s*$)")


@dataclass(frozen=True)
class Cell:
    """A code cell that is not empty.

    Attributes:
        number: 1 for the first, as ``In [1]`` shows it where the whole notebook was run once.
        first: the line of the whole at which it begins.
        lines: its Python, line by line; what only IPython knows has become ``pass``.
        left_out: the lines that have.
    """

    number: int
    first: int
    lines: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def text(self) -> str:
        """Its Python."""
        return "\n".join(self.lines)


def lines_of(text: str) -> list[str]:
    """Lines as Python counts them: `str.splitlines` also breaks at form feeds and other characters."""
    return [line.removesuffix("\n") for line in io.StringIO(text, newline=None)]


def is_notebook(file: str | Path) -> bool:
    return str(file).endswith(".ipynb")


def python_of(file: str | Path) -> bytes:
    """The Python of a file: all of it, or that of a notebook's cells.

    Raises:
        OSError: it cannot be read.
        StoriesError: it is called a notebook and is none.
    """
    if not is_notebook(file):
        return Path(file).read_bytes()
    return "\n".join(cell.text for cell in cells(file)).encode()


def pieces(file: str | Path) -> Iterator[tuple[int, bytes]]:
    """What is run one after the other: all of a file, as number 0, or each cell of a notebook behind as many empty
    lines as stand before it, so that they are numbered as in `python_of`.

    Raises:
        OSError, StoriesError: as `python_of`.
    """
    if not is_notebook(file):
        yield 0, python_of(file)
    else:
        for cell in cells(file):
            yield cell.number, ("\n" * (cell.first - 1) + cell.text).encode()


def cells(file: str | Path) -> tuple[Cell, ...]:
    """The code cells of a notebook.

    Raises:
        OSError, StoriesError: as `python_of`.
    """
    return _cells(str(file), os.stat(file).st_mtime_ns)


def builtins_of(file: str | Path) -> dict[str, Any]:
    """Names that IPython gives to every notebook."""
    return {"display": print} if is_notebook(file) else {}


def in_cell(file: str, line: int) -> tuple[int, int] | None:
    """The cell's number and the line in it, for a line of `python_of` a notebook; None for other files."""
    if not is_notebook(file):
        return None
    try:
        cell = next((cell for cell in reversed(cells(file)) if cell.first <= line), None)
    except (OSError, StoriesError):  # it has gone since
        return None
    return (cell.number, line - cell.first + 1) if cell else None


@lru_cache(8)
def _cells(file: str, _changed: int) -> tuple[Cell, ...]:
    try:
        sources = [cell["source"] for cell in json.loads(Path(file).read_bytes())["cells"] if _is_code(cell)]
        texts = [source if isinstance(source, str) else "".join(source) for source in sources]
    except (ValueError, KeyError, TypeError) as error:
        raise StoriesError(f"{file}: no notebook of format 4: open and save it in Jupyter") from error
    found: list[Cell] = []
    first = 1
    for text in filter(str.strip, texts):
        lines, left_out = _plain(lines_of(text))
        found.append(Cell(len(found) + 1, first, tuple(lines), tuple(left_out)))
        first += len(lines)
    return tuple(found)


def _is_code(cell: dict) -> bool:
    return cell["cell_type"] == "code"


def _plain(lines: list[str]) -> tuple[list[str], list[str]]:
    """The lines as Python, as many as they are, and those that are no Python."""
    try:
        ast.parse("\n".join(lines))
    except (SyntaxError, ValueError):
        pass
    else:
        return lines, []
    first = next(number for number, line in enumerate(lines) if line.strip())
    if lines[first].startswith("%%"):
        if not _MEASURES & set(lines[first][2:].split()[:1]):
            return ["pass", *[""] * (len(lines) - 1)], [lines[first]]
        lines = [*lines[:first], "", *lines[first + 1 :]]
    plain, left_out = [], []
    for line in lines:
        known, assigned = _LINE.fullmatch(line), _ASSIGNED.fullmatch(line)
        if assigned is not None:
            plain.append(assigned["names"] + "None")
            left_out.append(line.strip())
        elif known is None:
            plain.append(line)
        elif known["magic"] in _MEASURES:
            plain.append(known["indent"] + (known["rest"] or "pass"))
        else:
            plain.append(known["indent"] + "pass")
            left_out.append(line.strip())
    return plain, left_out
