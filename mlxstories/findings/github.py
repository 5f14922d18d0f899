"""Findings as annotations of a GitHub workflow: a line each on standard output.

Source: https://docs.github.com/actions/reference/workflow-commands-for-github-actions
"""

from __future__ import annotations

from collections.abc import Iterable

from mlxstories.findings.finding import ERROR, NOTE, WARNING, Finding
from mlxstories.findings.place import Place, in_repository

_COMMANDS = {ERROR: "error", WARNING: "warning", NOTE: "notice"}


def github_lines(findings: Iterable[Finding]) -> list[str]:
    """``::error file=train.py,line=33,title=future-leak::message``, a line for each finding."""
    return [_annotation(finding) for finding in findings]


def _annotation(finding: Finding) -> str:
    properties = {"title": finding.code}
    text = finding.message
    if isinstance(finding.where, Place):
        where = finding.where
        line = {} if "cell" in where else {"line": str(where["line"])}  # a cell's line is none of its file
        properties = {"file": in_repository(where["file"]), **line, **properties}
        if module := where.get("module"):
            text = f"{module}: {text}"
        if "cell" in where:
            text = f"{where.in_words}: {text}"
    elif finding.where:
        text = f"{finding.where}: {text}"
    if finding.fix:
        text += f"\nFix: {finding.fix}"
    named = ",".join(f"{name}={_escaped(value, property=True)}" for name, value in properties.items())
    return f"::{_COMMANDS[finding.severity]} {named}::{_escaped(text)}"


def _escaped(text: str, *, property: bool = False) -> str:
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if property else text
