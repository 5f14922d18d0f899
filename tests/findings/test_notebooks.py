"""Notebooks as Python: cells joined, what only IPython knows left out, and lines told by their cell."""

from __future__ import annotations

import ast
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxstories.errors import StoriesError
from mlxstories.findings import Finding, Place
from mlxstories.findings.github import github_lines
from mlxstories.findings.notebooks import cells, in_cell, python_of
from mlxstories.findings.place import spot
from mlxstories.findings.sarif import sarif


def notebook(path, *sources, joined=False):
    """Code cells between cells of text."""
    made = [{"cell_type": "markdown", "source": "# A lesson"}]
    for source in sources:
        made.append({"cell_type": "code", "source": source if joined else source.splitlines(keepends=True)})
    path.write_text(json.dumps({"cells": made, "nbformat": 4}), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("joined", [False, True])
def test_a_line_lies_in_a_cell_that_is_counted_as_jupyter_does(tmp_path, joined):
    file = notebook(
        tmp_path / "lesson.ipynb", "a = 1", "", "def f(x):\n    return x\n", "f(a)", joined=joined
    )
    code = python_of(file).decode()
    assert code.splitlines() == ["a = 1", "def f(x):", "    return x", "f(a)"]
    assert [in_cell(file, line) for line in (1, 2, 3, 4)] == [(1, 1), (2, 1), (2, 2), (3, 1)]
    assert spot(file, 3) == f"{file}, cell 2, line 2"
    assert in_cell("train.py", 3) is None and spot("train.py", 3) == "train.py:3"


@pytest.mark.parametrize(
    ("source", "plain", "left_out"),
    [
        ("%matplotlib inline\nx = 1", "pass\nx = 1", ["%matplotlib inline"]),
        ("if 1:\n    !pip install mlx\ny = 2", "if 1:\n    pass\ny = 2", ["!pip install mlx"]),
        ("files = !ls data\nx = 1", "files = None\nx = 1", ["files = !ls data"]),
        ("%time train()\ntrain?", "train()\npass", ["train?"]),
        ("%%time\ntrain()", "\ntrain()", []),
        ("%%bash\nls -l\ncat $x", "pass\n\n", ["%%bash"]),
        ("x = (7\n  % 3)\ns = '''\n!no\n'''", "x = (7\n  % 3)\ns = '''\n!no\n'''", []),
    ],
)
def test_what_only_ipython_knows_is_left_out_line_by_line(tmp_path, source, plain, left_out):
    file = notebook(tmp_path / "lesson.ipynb", source)
    assert python_of(file).decode() == plain
    assert list(cells(file)[0].left_out) == left_out
    ast.parse(python_of(file))


@given(st.lists(st.lists(st.text("abc =()%!?'#\n"), max_size=4).map("\n".join), max_size=5))
def test_cells_keep_their_lines_whatever_they_hold(tmp_path_factory, sources):
    file = notebook(tmp_path_factory.mktemp("any") / "any.ipynb", *sources)
    found = [len(cell.lines) for cell in cells(file)]
    assert found == [len(source.splitlines()) for source in sources if source.strip()]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cells": [{}]}', '{"worksheets": []}', "\0"])
def test_what_is_no_notebook_is_one_line(tmp_path, text):
    (tmp_path / "lesson.ipynb").write_text(text)
    with pytest.raises(StoriesError, match=r"lesson\.ipynb: no notebook of format 4"):
        python_of(tmp_path / "lesson.ipynb")


def test_a_finding_in_a_cell_is_told_as_such(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = notebook(tmp_path / "lesson.ipynb", "a = 1", "b = 2\nc = 3\nd = 4")
    place = Place.at(file, 3, module="blocks.0")
    assert place == {"file": file, "cell": 2, "line": 2, "module": "blocks.0"}
    assert str(place) == "lesson.ipynb, cell 2, line 2 (blocks.0)"
    assert place.around(1) == [(1, "b = 2"), (2, "c = 3"), (3, "d = 4")]
    finding = Finding("future-leak", "error", "init", "a leak", where=place)
    assert github_lines([finding]) == [
        "::error file=lesson.ipynb,title=future-leak::cell 2, line 2: blocks.0: a leak"
    ]
    result = sarif([finding], "lesson.ipynb")["runs"][0]["results"][0]
    assert result["message"]["text"].startswith("cell 2, line 2: a leak")
    assert result["locations"][0]["physicalLocation"] == {"artifactLocation": {"uri": "lesson.ipynb"}}
    (tmp_path / "lesson.ipynb").unlink()
    assert place.around() == [] and in_cell(file, 3) is None


def test_lines_are_counted_as_python_does(tmp_path):
    source = 'mark = "a\u2028b"\n\x0c\nafter = 1\n'
    file = tmp_path / "train.py"
    file.write_text(source, encoding="utf-8")
    assert Place.at(str(file), 3).around(0) == [(3, "after = 1")]
    (tmp_path / "lesson.ipynb").write_text(json.dumps({"cells": [{"cell_type": "code", "source": source}]}))
    namespace = {}
    exec(python_of(tmp_path / "lesson.ipynb"), namespace)
    assert namespace["mark"] == "a\u2028b"
