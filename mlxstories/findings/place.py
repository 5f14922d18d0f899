"""A line of the user's code as a finding's ``where``."""

from __future__ import annotations

import os
from pathlib import Path


class Place(dict):
    """``file`` and ``line``, and ``module`` where it is known; reads like ``train.py:33 (blocks.0)``."""

    def __str__(self) -> str:
        place = f"{self.path}:{self['line']}"
        return f"{place} ({self['module']})" if self.get("module") else place

    def __hash__(self) -> int:  # type: ignore[override]  # findings are told apart by it
        return hash(str(self))

    @property
    def path(self) -> str:
        """The file, relative to the working directory if it lies below it."""
        try:
            relative = os.path.relpath(self["file"])
        except (ValueError, FileNotFoundError):  # another drive, or the working directory is gone
            return self["file"]
        return self["file"] if relative.startswith("..") else relative

    def around(self, lines: int = 3) -> list[tuple[int, str]]:
        """The numbered lines of code around it; none if the file is not there any more, or is no Python."""
        file = Path(self["file"])
        if file.suffix != ".py" or not file.is_file():
            return []
        code = file.read_text(encoding="utf-8", errors="replace").splitlines()
        first = max(self["line"] - lines, 1)
        return list(enumerate(code[first - 1 : self["line"] + lines], first))
