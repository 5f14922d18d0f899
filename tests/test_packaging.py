"""A wheel holds every room, and nothing else lands beside the package."""

from __future__ import annotations

from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

import mlxstories

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def packed() -> set[str]:
    """Paths inside the wheel."""
    builder = WheelBuilder(str(ROOT))
    return {file.distribution_path for file in builder.recurse_included_files()}


def test_every_module_and_template_is_packed(packed):
    rooms = {"mlxstories": ROOT / "mlxstories"}
    rooms |= {f"mlxstories/{name}": ROOT / name for name in ("cli", "data", "plots")}
    here = {
        f"{name}/{path.relative_to(folder).as_posix()}"
        for name, folder in rooms.items()
        for path in folder.rglob("*")
        if path.is_file() and not {"__pycache__", "gallery"} & set(path.parts)
    }
    assert here <= packed
    assert {
        "mlxstories/py.typed",
        "mlxstories/cli/train.py",
        "mlxstories/plots/report/templates/report.css",
    } <= packed


def test_nothing_but_the_package_is_packed(packed):
    assert {path.split("/")[0] for path in packed} == {"mlxstories"}
    assert not [path for path in packed if "gallery" in path or "__pycache__" in path]


def test_the_import_tree_is_the_file_tree():
    package = Path(mlxstories.__file__).parent
    for name in ("cli", "data", "plots"):
        assert (package / name / "__init__.py").is_file()
