"""The sets of public reports: every case is expected, and no report is in two."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from mlxstories.ladder import CATALOGUE

_REPORTED = Path(__file__).parents[2] / "benchmarks" / "reported"


_SETS = ("", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh")


@pytest.mark.parametrize("folder", _SETS)
def test_every_reported_fault_is_expected_and_every_expected_case_is_there(folder):
    folder = _REPORTED / folder
    there = {
        f"{path.name}:{item.name}"
        for path in folder.glob("*.py")
        for item in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(item, ast.FunctionDef) and item.name.startswith(("f_", "ok_", "h_"))
    }
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    assert {name for name in there if ":f_" in name} <= set(expected) <= there
    assert {code for case in expected.values() for code in case["want"]} <= set(CATALOGUE)
    odd = {name for name in expected if ":h_" in name}
    assert all(expected[name]["source"].startswith("https://") for name in {*expected} - odd)
    assert all(not expected[name]["want"] for name in odd)


def test_no_report_is_a_fault_of_two_sets():
    sets = [json.loads((_REPORTED / name / "expected.json").read_text()) for name in _SETS]
    sources = [
        source for cases in sets for source in {case["source"] for n, case in cases.items() if ":f_" in n}
    ]
    assert len(sources) == len(set(sources)) > 80
