"""From many symptoms one cause: findings that an error explains are folded under it."""

from __future__ import annotations

import dataclasses

from mlxstories.findings.causes import cause_of
from mlxstories.findings.finding import ERROR, NOTE, SEVERITIES, Finding

_FAILURE = "subject-error"


def fold(findings: list[Finding]) -> tuple[list[Finding], list[Finding]]:
    """Order findings by severity and cause, and take out those that an error before them explains.

    Returns:
        The findings that remain, and the consequences; a remaining finding's evidence names the other codes folded
        under it as ``consequences``.
    """
    unique = {(f.code, f.severity, f.where): f for f in reversed(findings)}
    ordered = sorted(
        unique.values(),
        key=lambda f: (SEVERITIES.index(f.severity), cause_of(f.code).priority, findings.index(f)),
    )
    kept: list[Finding] = []
    folded: list[Finding] = []
    under: dict[int, set[str]] = {}
    for finding in ordered:
        cause = next((k for k in kept if _explains(k, finding)), None)
        if cause is None:
            kept.append(finding)
            continue
        if _explains(finding, cause) and findings.index(finding) < findings.index(cause):
            # Of two that bring each other about, the one that was there first did.
            kept[kept.index(cause)] = finding
            under[id(finding)] = under.pop(id(cause), set())
            cause, finding = finding, cause
        folded.append(finding)
        if finding.code != cause.code:
            under.setdefault(id(cause), set()).add(finding.code)
    return [_with_consequences(f, under.get(id(f))) for f in kept], folded


def _explains(error: Finding, finding: Finding) -> bool:
    if error.severity != ERROR or finding.severity == NOTE:
        return False
    if error.code == _FAILURE != finding.code:  # it ended the climb: whatever there is was found before
        return False
    if error.code == finding.code or cause_of(finding.code).stage == "result":
        return True
    return finding.code in cause_of(error.code).brings_about


def _with_consequences(finding: Finding, codes: set[str] | None) -> Finding:
    if not codes:
        return finding
    return dataclasses.replace(finding, evidence={**finding.evidence, "consequences": sorted(codes)})
