"""Findings for other programs: places, GitHub annotations, SARIF."""

from __future__ import annotations

import dataclasses
import json
import re
from urllib.parse import unquote, urlparse

import pytest
from click.testing import CliRunner

import mlxstories
from mlxstories.cli import main
from mlxstories.errors import StoriesError
from mlxstories.findings import ERROR, NOTE, WARNING, Finding, Place
from mlxstories.findings.github import github_lines
from mlxstories.findings.sarif import sarif
from mlxstories.storage.serialize import from_dict

CODE = "def loss(model, x):\n    return model(x).mean()\n"


def test_a_finding_is_a_value_that_stays():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Finding("future-leak", ERROR, "init", "").code = "overfitting"


@pytest.fixture
def findings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b,c.py").write_text(CODE)
    here = Place(file=str(tmp_path / "a b,c.py"), line=2, module="blocks.0")
    away = Place(file="/elsewhere/model.py", line=7)
    return [
        Finding("future-leak", ERROR, "init", "50% leak:\nnow", {"change": 0.5}, "mask it", here),
        Finding("no-bias-correction", WARNING, "minimal", "too long steps", where=away),
        Finding("frozen-parameters", NOTE, "init", "frozen", where="embed.weight"),
        Finding("overfitting", WARNING, "short", "worse"),
    ]


def test_annotations_and_sarif_count_files_from_the_root_of_the_repository(tmp_path, monkeypatch):
    (tmp_path / "part").mkdir()
    monkeypatch.chdir(tmp_path / "part")
    where = Place(file=f"{tmp_path}/part/../train.py", line=3)
    found = [Finding("no-update", ERROR, "minimal", "nothing moves", where=where)]
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    assert github_lines(found) == ["::error file=train.py,line=3,title=no-update::nothing moves"]
    (result,) = sarif(found, "part/my_setup.py")["runs"][0]["results"]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "train.py"
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path / "elsewhere"))
    assert github_lines(found)[0].startswith(f"::error file={tmp_path}/train.py,line=3")


def test_annotations_escape_what_would_end_them(findings):
    assert github_lines(findings) == [
        "::error file=a b%2Cc.py,line=2,title=future-leak::blocks.0: 50%25 leak:%0Anow%0AFix: mask it",
        "::warning file=/elsewhere/model.py,line=7,title=no-bias-correction::too long steps",
        "::notice title=frozen-parameters::embed.weight: frozen",
        "::warning title=overfitting::worse",
    ]


# Properties of SARIF 2.1.0 that are required, and others that we write; the schema allows none it does not know.
SCHEMA = {
    "log": ({"version", "runs"}, {"$schema"}),
    "run": ({"tool"}, {"results", "automationDetails"}),
    "automationDetails": (set(), {"id"}),
    "tool": ({"driver"}, set()),
    "driver": ({"name"}, {"version", "rules"}),
    "rule": ({"id"}, {"shortDescription"}),
    "message": ({"text"}, set()),
    "result": ({"message"}, {"ruleId", "ruleIndex", "level", "locations", "properties"}),
    "location": (set(), {"physicalLocation", "logicalLocations"}),
    "physicalLocation": ({"artifactLocation"}, {"region"}),
    "artifactLocation": (set(), {"uri"}),
    "region": (set(), {"startLine"}),
}


def held(kind, value):
    required, others = SCHEMA[kind]
    assert required <= set(value) <= required | others, (kind, value)
    return value


def test_sarif_has_what_the_schema_requires(findings, tmp_path):
    log = held("log", json.loads(json.dumps(sarif(findings, "part/my_setup.py"))))
    assert log["version"] == "2.1.0" and len(log["runs"]) == 1
    run = held("run", log["runs"][0])
    # the category by which GitHub tells the subjects of a repository apart is what stands before the last slash
    assert held("automationDetails", run["automationDetails"])["id"] == "mlxstories/part/my_setup.py/"
    driver = held("driver", held("tool", run["tool"])["driver"])
    for rule in driver["rules"]:
        held("message", held("rule", rule)["shortDescription"])
    assert len(run["results"]) == len(findings)
    for result, finding in zip(run["results"], findings, strict=True):
        held("message", held("result", result)["message"])
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"] == finding.code
        assert result["level"] in ("none", "note", "warning", "error")
        for location in result.get("locations", []):
            held("location", location)
            if "physicalLocation" in location:
                physical = held("physicalLocation", location["physicalLocation"])
                assert held("region", physical["region"])["startLine"] >= 1
                uri = held("artifactLocation", physical["artifactLocation"])["uri"]
                assert urlparse(uri).scheme in ("", "file") and " " not in uri
    first, second, third, fourth = run["results"]
    assert unquote(first["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]) == "a b,c.py"
    assert first["locations"][0]["logicalLocations"] == [{"fullyQualifiedName": "blocks.0"}]
    assert (
        second["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "file:///elsewhere/model.py"
    )
    assert third["locations"] == [{"logicalLocations": [{"fullyQualifiedName": "embed.weight"}]}]
    assert "locations" not in fourth


def test_a_place_reads_like_a_traceback_and_shows_its_code(findings, tmp_path):
    here = findings[0].where
    assert str(here) == "a b,c.py:2 (blocks.0)"
    assert here.around() == [(1, "def loss(model, x):"), (2, "    return model(x).mean()")]
    assert here.around(0) == [(2, "    return model(x).mean()")]
    (tmp_path / "secret.txt").write_text("no code")
    for other in ("secret.txt", "gone.py"):
        assert Place(file=str(tmp_path / other), line=1).around() == []


def test_findings_with_places_survive_json(findings):
    for finding in findings:
        again = from_dict(Finding, json.loads(json.dumps(dataclasses.asdict(finding))), "findings.json")
        assert again == finding and type(again.where) is type(finding.where)
    broken = dataclasses.asdict(findings[0]) | {"where": {"file": 3}}
    with pytest.raises(StoriesError, match="where"):
        from_dict(Finding, broken, "findings.json")


def test_debug_writes_both(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "setup.py").write_text(
        "import tiny\n\n\ndef subject():\n    return tiny.subject(model=lambda: tiny.Tiny(future=0.5))\n"
    )
    options = ["--rung", "init", "--format", "github", "--sarif", "log/x.sarif"]
    result = CliRunner().invoke(main, ["debug", "setup.py", *options])
    assert result.exit_code == 1, result.output
    assert re.search(r"::error file=\S*tiny\.py,line=\d+,title=future-leak::", result.output)
    *_, last = result.output.splitlines()
    assert last.startswith(f"To see this again: mlxstories debug setup.py {' '.join(options)} (mlx")
    assert f"mlxstories {mlxstories.__version__}, mlx " in last
    log = json.loads((tmp_path / "log" / "x.sarif").read_text())
    assert log["runs"][0]["results"][0]["ruleId"] == "future-leak"
