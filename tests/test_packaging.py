"""What pyproject.toml packs is what the rooms hold."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

import pytest

tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML")
ROOT = Path(__file__).parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
FOLDERS = {name: ROOT / place for name, place in SETUPTOOLS["package-dir"].items()}


def packages() -> dict[str, Path]:
    """Every package of the rooms by its import name."""
    return {
        ".".join([name, *init.parent.relative_to(folder).parts]): init.parent
        for name, folder in FOLDERS.items()
        for init in folder.rglob("__init__.py")
    }


def test_every_package_is_listed():
    assert sorted(SETUPTOOLS["packages"]) == sorted(packages())


def test_every_file_beside_the_code_is_packed():
    patterns = [
        str(packages()[name] / pattern)
        for name, given in SETUPTOOLS["package-data"].items()
        for pattern in given
    ]
    skipped = ("__pycache__", "gallery")  # the study's figures are documentation
    others = [
        path
        for folder in FOLDERS.values()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".py" and not set(path.parts) & set(skipped)
    ]
    assert others
    for path in others:
        assert any(fnmatch(str(path), pattern) for pattern in patterns), f"{path} is in no package-data"
