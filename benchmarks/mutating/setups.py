"""Sound setups to mutate: where each comes from, and a copy of its folder in which one file at a time is another."""

from __future__ import annotations

import ast
import importlib
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

BENCHMARKS = Path(__file__).parents[1]
_ENTRY = "from healthy import HEALTHY\n\n\ndef subject():\n    return HEALTHY[{name!r}](0)\n"


@dataclass(frozen=True)
class Origin:
    """A sound setup.

    Attributes:
        path: of the file that is loaded.
        function: that returns the subject; None for a script.
        argv: what the script is given.
        zoo: its name in the healthy zoo, where it comes from there.
    """

    path: Path
    function: str | None = None
    argv: tuple[str, ...] = ()
    zoo: str | None = None

    @property
    def name(self) -> str:
        if self.zoo:
            return f"zoo: {self.zoo}"
        return f"script: {self.path.name}" if self.script else f"{self.path.name}: {self.function}"

    @property
    def script(self) -> bool:
        return self.function is None and self.zoo is None


class Workplace:
    """A copy of a setup's folder.

    Attributes:
        files: of the copy, that are mutated.
        spec: what is loaded: ``file.py:function``, or a script.
    """

    def __init__(self, origin: Origin, place: Path):
        self.origin = origin
        self.folder = place / origin.path.parent.name
        self.folder.mkdir()
        for path in origin.path.parent.parent.iterdir():  # data that lies beside it, say
            if path != origin.path.parent and not path.name.startswith("."):
                (place / path.name).symlink_to(path)
        sys.path.append(str(origin.path.parent.parent))  # what the files of several folders import
        for path in origin.path.parent.glob("*.py"):
            shutil.copyfile(path, self.folder / path.name)
        entry, function = self.folder / origin.path.name, origin.function
        self.files = [entry]
        if origin.zoo:
            self.files = [self.folder / "zoo.py", self.folder / "healthy.py"]
            entry, function = self.folder / "entry.py", "subject"
            entry.write_text(_ENTRY.format(name=origin.zoo))
        self.spec = str(entry) + (f":{function}" if function else "")
        for file in self.files:
            _import_libraries(file)

    @contextmanager
    def holding(self, file: Path, source: str) -> Iterator[None]:
        """While the file has another source."""
        before = file.read_text(encoding="utf-8")
        file.write_text(source, encoding="utf-8")
        try:
            yield
        finally:
            file.write_text(before, encoding="utf-8")


def _import_libraries(file: Path) -> None:
    """Import here what a file imports of the libraries, so that forked processes need not, each for itself."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            if name and not (file.parent / f"{name.split('.')[0]}.py").exists():
                try:
                    importlib.import_module(name)
                except ImportError:
                    continue


def given(
    zoo: str, files: tuple[str, ...], scripts: tuple[Path, ...], argv: tuple[str, ...]
) -> Iterator[Origin]:
    """The setups that a command line names."""
    sys.dont_write_bytecode = True  # two mutants of one second and size would share it
    for name in filter(None, zoo.split(",")):
        yield Origin(BENCHMARKS / "healthy.py", zoo=name)
    for spec in files:
        path, _, names = spec.rpartition(":")
        if not path or not Path(path).is_file():
            raise click.BadParameter(f"{spec}: give FILE.py:FUNCTION[,FUNCTION]")
        for name in names.split(","):
            yield Origin(Path(path).resolve(), name)
    for script in scripts:
        yield Origin(script, argv=argv)
