"""Diagnoses of what could not be examined, or not to the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlxstories.findings import Finding
    from mlxstories.ladder.diagnosis import Diagnosis, Rung


def not_loaded(name: str, message: str) -> Diagnosis:
    """Of what cannot be loaded."""
    from mlxstories.ladder.diagnosis import Diagnosis

    return Diagnosis(name, [_error(name, message, "fix what the line names, then examine it")], [], 0.0)


def died(name: str, how: str, findings: list[Finding], rungs: list[Rung]) -> Diagnosis:
    """Of a process that ended, hung or broke, after it had found and climbed something or nothing."""
    from mlxstories.findings import fold
    from mlxstories.ladder.diagnosis import Diagnosis, Line
    from mlxstories.ladder.verdict import FAILED

    fix = (
        "run its parts by hand and fix what ends or holds up the process; if it is only slow, raise --timeout"
    )
    if "SIGSEGV" in how or "SIGBUS" in how:
        fix = "look for ids that are no row of their embedding, of tokens or positions: MLX reads past the table"
    error = _error(name, f"{name} {how}", fix)
    if rungs:
        rungs[-1].status = FAILED
        rungs[-1].checks.append(Line("the subject runs", FAILED, error.message, (error.code,)))
    kept, folded = fold([error, *findings])
    return Diagnosis(name, kept, rungs, sum(rung.seconds for rung in rungs), folded)


def _error(name: str, message: str, fix: str) -> Finding:
    from mlxstories.findings import ERROR, Finding

    return Finding("subject-error", ERROR, "data", message, fix=fix, where=name)
