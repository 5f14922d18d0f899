"""Running a script as `python SCRIPT` or `python -m MODULE` would, or a notebook cell by cell, in this process."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from mlxstories.findings.notebooks import is_notebook, python_of


def run(target: str, argv: Sequence[str], module: bool) -> None:
    """Run it to its end; its exceptions are its own, and so is its SystemExit."""
    kept = sys.argv, list(sys.path)
    sys.argv = [target, *argv]
    try:
        if module:
            sys.path.insert(0, "")
            runpy.run_module(target, run_name="__main__", alter_sys=True)
            return
        sys.path.insert(0, str(Path(target).resolve().parent))
        if is_notebook(target):
            code = compile(python_of(target), str(Path(target).resolve()), "exec")
            exec(code, {"__name__": "__main__", "display": print})
        else:
            runpy.run_path(target, run_name="__main__")
    finally:
        sys.argv, sys.path[:] = kept
