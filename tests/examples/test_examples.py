"""The examples do what their page says."""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path

from mlxstories.ladder import diagnose

EXAMPLES = Path(__file__).parents[2] / "examples"


def subject(name: str):
    return runpy.run_path(str(EXAMPLES / name))["subject"]()


def test_three_mistakes_are_found_in_broken_and_none_in_fixed():
    broken, fixed = subject("broken.py"), subject("fixed.py")
    first = diagnose(broken, rungs=["init", "minimal"])
    assert [(f.code, f.severity) for f in first.findings] == [
        ("padding-in-loss", "error"),
        ("future-leak", "error"),
    ]
    assert {f.code for f in first.consequences} == {"no-bias-correction"}

    loss_mended = dataclasses.replace(broken, loss=fixed.loss)
    assert [f.code for f in diagnose(loss_mended, rungs=["init"]).findings] == ["future-leak"]

    model_mended = dataclasses.replace(loss_mended, model=fixed.model)
    last = diagnose(model_mended, rungs=["minimal"])
    assert [f.code for f in last.findings] == ["no-bias-correction"]
    assert not diagnose(fixed, rungs=["data", "init", "minimal"]).findings
