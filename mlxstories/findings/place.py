"""A line of the user's code as a finding's ``where``."""

from __future__ import annotations

import os
from pathlib import Path

from mlxstories.errors import StoriesError
from mlxstories.findings.notebooks import cells, in_cell, is_notebook, lines_of


class Place(dict):
    """``file`` and ``line``, and ``module`` where it is known; reads like ``train.py:33 (blocks.0)``.

    In a notebook there is ``cell`` too, and ``line`` is one of that: ``lesson.ipynb, cell 4, line 3 (blocks.0)``.
    """

    @classmethod
    def at(cls, file: str, line: int, **more: str) -> Place:
        """A line of a file, or of the Python that a notebook's cells are together."""
        cell = in_cell(file, line)
        where = {"line": line} if cell is None else {"cell": cell[0], "line": cell[1]}
        return cls(file=file, **where, **more)

    def __str__(self) -> str:
        place = self.behind(self.path)
        return f"{place} ({self['module']})" if self.get("module") else place

    def __hash__(self) -> int:  # type: ignore[override]  # findings are told apart by it
        return hash(str(self))

    def behind(self, file: str) -> str:
        """The place after a file's name: ``train.py:33``, or ``lesson.ipynb, cell 4, line 3``."""
        return f"{file}, {self.in_words}" if "cell" in self else f"{file}:{self['line']}"

    @property
    def in_words(self) -> str:
        """Where in the file: the line, behind the cell where there is one."""
        return (f"cell {self['cell']}, " if "cell" in self else "") + f"line {self['line']}"

    @property
    def path(self) -> str:
        """The file, relative to the working directory if it lies below it."""
        return _below(os.curdir, self["file"]) or os.path.normpath(self["file"])

    def around(self, lines: int = 3) -> list[tuple[int, str]]:
        """The numbered lines of code around it, within its cell in a notebook; none if the file is gone or is no
        Python."""
        first = max(self["line"] - lines, 1)
        return list(enumerate(self._code()[first - 1 : self["line"] + lines], first))

    def _code(self) -> list[str]:
        file = Path(self["file"])
        try:
            if is_notebook(file):
                return next((list(cell.lines) for cell in cells(file) if cell.number == self.get("cell")), [])
            if file.suffix == ".py":
                return lines_of(file.read_text(encoding="utf-8", errors="replace"))
        except (OSError, StoriesError):
            pass
        return []


def in_repository(file: str) -> str:
    """A file as GitHub counts it, from the root of the repository, whatever directory a step works in."""
    root = os.environ.get("GITHUB_WORKSPACE")
    return (root and _below(root, file)) or _below(os.curdir, file) or os.path.normpath(file)


def _below(folder: str, file: str) -> str | None:
    """The file's path from the folder, or None if it does not lie below that."""
    try:
        relative = os.path.relpath(file, folder)
    except (ValueError, FileNotFoundError):  # another drive, or the working directory is gone
        return None
    return None if relative.startswith("..") else relative


def spot(file: str, line: int) -> str:
    """A line of a file, or of the Python that a notebook's cells are together, in the words of a finding's place."""
    return str(Place.at(file, line))
