"""Running a script as `python SCRIPT` or `python -m MODULE` would, or a notebook cell by cell, in this process."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from mlxstories.findings.notebooks import builtins_of, is_notebook, pieces


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
        if not is_notebook(target):
            runpy.run_path(target, run_name="__main__")
            return
        names = {"__name__": "__main__", **builtins_of(target)}
        for _, source in pieces(target):
            exec(compile(source, str(Path(target).resolve()), "exec"), names)
    finally:
        sys.argv, sys.path[:] = kept
