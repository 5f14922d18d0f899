"""Running a script as `python SCRIPT` or `python -m MODULE` would, or a notebook cell by cell, in this process."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from mlxstories.findings.notebooks import builtins_of, pieces
from mlxstories.ladder.capture.settings import Settings
from mlxstories.ladder.patches import Patches


def run(target: str, argv: Sequence[str], module: bool, settings: Settings) -> None:
    """Run it to its end, with constants replaced; its exceptions are its own, and so is its SystemExit."""
    kept, patches = (sys.argv, list(sys.path), sys.modules["__main__"]), Patches()
    settings.install(patches)
    sys.argv = [target, *argv]
    try:
        with patches:
            if module:
                sys.path.insert(0, "")
                runpy.run_module(target, run_name="__main__", alter_sys=True)
                return
            sys.path.insert(0, str(Path(target).resolve().parent))
            main = sys.modules["__main__"] = ModuleType("__main__")
            main.__dict__.update(__file__=target, **builtins_of(target))
            for _, source in pieces(target):
                exec(settings.compiled(source, str(Path(target).resolve())), main.__dict__)
    finally:
        sys.argv, sys.path[:], sys.modules["__main__"] = kept
