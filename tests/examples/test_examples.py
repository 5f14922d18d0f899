"""The examples do what their page says."""

from __future__ import annotations

import dataclasses
import json
import runpy
from pathlib import Path

import pytest

from mlxstories.ladder import diagnose

EXAMPLES = Path(__file__).parents[2] / "examples"


def subject(name: str):
    return runpy.run_path(str(EXAMPLES / name))["subject"]()


@pytest.mark.long
def test_three_mistakes_are_found_in_broken_and_none_in_fixed():
    broken, fixed = subject("broken.py"), subject("fixed.py")
    first = diagnose(broken, rungs=["init"])
    assert [(f.code, f.severity) for f in first.findings] == [
        ("padding-in-loss", "error"),
        ("future-leak", "error"),
    ]

    loss_mended = dataclasses.replace(broken, loss=fixed.loss)
    assert [f.code for f in diagnose(loss_mended, rungs=["init"]).findings] == ["future-leak"]

    model_mended = dataclasses.replace(loss_mended, model=fixed.model)
    last = diagnose(model_mended, rungs=["data", "init", "minimal"])
    assert [f.code for f in last.findings] == ["no-bias-correction"]
    assert not diagnose(fixed, rungs=["data", "init"]).findings
    assert fixed.optimizer().bias_correction and not broken.optimizer().bias_correction


@pytest.mark.long
def test_the_notebook_runs_from_top_to_bottom(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((EXAMPLES / "first_steps.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names: dict = {}
    for number, cell in enumerate(cells, 1):
        assert cell["execution_count"] == number and cell["outputs"], "run it again and save its outputs"
        lines = [line for line in cell["source"] if not line.startswith("%")]
        exec("".join(lines), names)
    assert [finding.code for finding in names["diagnosis"].findings] == ["future-leak"]
    assert names["floor"].nats < names["result"]["loss"] < 3
