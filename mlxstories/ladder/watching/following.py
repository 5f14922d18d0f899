"""Running a script as `python SCRIPT` or `python -m MODULE` would, in this process."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path


def run(target: str, argv: Sequence[str], module: bool) -> None:
    """Run it to its end; its exceptions are its own, and so is its SystemExit."""
    kept = sys.argv, list(sys.path)
    sys.argv = [target, *argv]
    try:
        if module:
            sys.path.insert(0, "")
            runpy.run_module(target, run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, str(Path(target).resolve().parent))
            runpy.run_path(target, run_name="__main__")
    finally:
        sys.argv, sys.path[:] = kept
