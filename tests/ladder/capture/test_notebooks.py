"""Notebooks under `debug`: run as scripts are, with findings, notes and exceptions told by cell and line."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from mlxstories.cli import main
from mlxstories.ladder.capture import definitions
from tests.ladder.scripts import LOOP, MODEL, line_of

LEAK = MODEL.replace("[(0, 0), (1, 0), (0, 0)])[:, :-1]", "[(0, 0), (0, 1), (0, 0)])[:, 1:]")
LAST = LOOP.strip() + "\n\n%time 1 + 1"


@pytest.fixture
def debug(tmp_path, monkeypatch):
    """Runs `mlxstories debug lesson.ipynb` on cells, and returns the result and the JSON, where it is ``told``."""
    monkeypatch.chdir(tmp_path)

    def run(*cells, options=(), told=("--json", "found.json")):
        made = [{"cell_type": "code", "source": cell.splitlines(keepends=True)} for cell in cells]
        (tmp_path / "lesson.ipynb").write_text(json.dumps({"cells": made, "nbformat": 4}))
        result = CliRunner().invoke(main, ["debug", "lesson.ipynb", *told, *options])
        report = tmp_path / "found.json"  # that of --follow is written where something is found
        return result, json.loads(report.read_text()) if report.exists() else None

    return run


def test_a_leak_in_a_cell_is_named_there(debug):
    result, report = debug("!pip install mlx", LEAK.strip(), LAST)
    assert result.exit_code == 1, result.output
    line = line_of(LEAK.strip(), "mx.pad(")
    assert report["findings"][0]["code"] == "future-leak"
    where = report["findings"][0]["where"]
    assert (where["cell"], where["line"]) == (2, line)
    assert f"error: future-leak at lesson.ipynb, cell 2, line {line}" in result.output
    assert "not run, since only IPython understands it: !pip install mlx" in result.output


def test_a_sound_notebook_is_healthy_and_its_constants_can_be_set(debug):
    result, report = debug(MODEL.strip(), "display(V)", LAST, options=["--set", "T=6", "--rung", "init"])
    assert result.exit_code == 0, result.output
    assert not [f for f in report["findings"] if f["severity"] == "error"]


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (
            "x = 1\nmodel.missing(x)",
            "AttributeError",
        ),
        ("x = 1\nx = (", "SyntaxError"),
    ],
)
def test_what_a_cell_raises_is_told_with_its_line(debug, cell, said):
    result, report = debug(MODEL.strip(), cell, LAST)
    assert result.exit_code == 2
    assert said in result.output and "lesson.ipynb, cell 2, line 2" in result.output
    assert "Traceback" not in result.output and report["findings"][0]["code"] == "subject-error"


def test_a_notebook_is_followed_to_its_end(debug):
    short = LAST.replace("range(500)", "range(12)")
    result, _ = debug(MODEL.strip(), "%matplotlib inline", short, options=["--follow"])
    assert result.exit_code == 0, result.output
    assert "lesson.ipynb: 12 updates" in result.output


def test_windows_are_not_opened(debug):
    shown = "import matplotlib.pyplot as plt\nassert plt.get_backend().lower() == 'agg'\nplt.show()"
    result, _ = debug(
        "import os\nassert os.environ['MPLBACKEND'] == 'agg'",
        shown,
        MODEL.strip(),
        LAST,
        options=["--rung", "data"],
    )
    assert result.exit_code == 0, result.output


@pytest.mark.long
def test_a_later_training_is_examined_where_its_cell_is_named(debug):
    first = LOOP.strip().replace(
        "optim.AdamW(1e-2", "optim.SGD(1e-3, momentum=0.5) if 1 else optim.AdamW(1e-2"
    )
    cells = MODEL.strip(), first, "done = i", LEAK[LEAK.index("class Model") :].strip(), LAST
    result, report = debug(*cells, options=["--rung", "init"])
    assert (
        result.exit_code == 0
        and "the training of cell 2 is examined; a later one may train too: --cell 5" in result.output
    )
    result, report = debug(*cells, options=["--cell", "5", "--rung", "init"])
    where = report["findings"][0]["where"]
    assert (report["findings"][0]["code"], where["cell"]) == ("future-leak", 4), result.output
    assert where["line"] == line_of(cells[3], "mx.pad(") and "may train too" not in result.output


@pytest.mark.parametrize(("cell", "said"), [("9", "has 3 code cells, and no cell 9"), ("0", "--cell")])
def test_a_cell_that_there_is_not_is_one_line(debug, cell, said):
    result, _ = debug(MODEL.strip(), "x = 1", LAST, options=["--cell", cell])
    assert result.exit_code == 2 and said in result.output


def test_the_setup_that_is_written_has_what_all_cells_define(debug):
    last = "def later():\n    return 7"
    result, _ = debug(MODEL.strip(), LAST, last, options=["--write-subject", "setup.py"], told=())
    assert result.exit_code == 0, result.output
    assert definitions("lesson.ipynb").later() == 7
