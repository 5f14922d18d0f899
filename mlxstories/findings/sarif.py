"""Findings as SARIF 2.1.0, which code scanning and editors read.

Source: https://docs.oasis-open.org/sarif/sarif/v2.1.0/
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mlxstories.findings.causes import cause_of
from mlxstories.findings.finding import Finding
from mlxstories.findings.place import Place, in_repository

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def sarif(findings: Iterable[Finding], subject: str) -> dict[str, Any]:
    """A log of one run: a rule for each code that is named, and a result for each finding.

    GitHub replaces a repository's earlier results of the same ``automationDetails``, so each subject has its own.
    """
    findings = list(findings)
    codes = sorted({finding.code for finding in findings})
    rules = [{"id": code, "shortDescription": {"text": cause_of(code).meaning}} for code in codes]
    driver = {"name": "mlxstories", "version": version("mlxstories"), "rules": rules}
    results = [_result(finding, codes.index(finding.code)) for finding in findings]
    run = {
        "tool": {"driver": driver},
        "automationDetails": {"id": f"mlxstories/{subject}/"},
        "results": results,
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _result(finding: Finding, rule: int) -> dict[str, Any]:
    text = finding.message + (f". Fix: {finding.fix}" if finding.fix else "")
    result: dict[str, Any] = {
        "ruleId": finding.code,
        "ruleIndex": rule,
        "level": finding.severity,  # error, warning and note are its words too
        "message": {"text": text},
        "properties": {"rung": finding.rung, "evidence": finding.evidence},
    }
    location: dict[str, Any] = {}
    where = finding.where
    name = where.get("module") if isinstance(where, Place) else where and str(where)
    if isinstance(where, Place):
        artifact = {"uri": _uri(in_repository(where["file"]))}
        location["physicalLocation"] = {"artifactLocation": artifact}
        if "cell" in where:  # a cell's line is none of its file
            result["message"]["text"] = f"{where.in_words}: {text}"
        else:
            location["physicalLocation"]["region"] = {"startLine": where["line"]}
    if name:
        location["logicalLocations"] = [{"fullyQualifiedName": name}]
    if location:
        result["locations"] = [location]
    return result


def _uri(path: str) -> str:
    """Relative to the repository or the working directory, or of scheme ``file``."""
    return Path(path).as_uri() if Path(path).is_absolute() else quote(Path(path).as_posix())
