"""What a climb found: rungs with their lines, and findings, the most likely cause first."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from mlxstories.findings import ERROR, Finding
from mlxstories.ladder.limits import Gauge
from mlxstories.ladder.verdict import OTHER_TASK


@dataclass
class Line:
    """One check as it went.

    Attributes:
        name: what it claims of a sound subject.
        status: ``passed``, ``failed`` or ``skipped``.
        detail: the figure, or the reason for skipping.
        codes: of the findings that it made; of a check that passed, these are warnings and notes.
    """

    name: str
    status: str
    detail: str = ""
    codes: tuple[str, ...] = ()


@dataclass
class Rung:
    """A rung climbed, with its checks, its duration in seconds and the data of its figures."""

    name: str
    status: str = "skipped"
    seconds: float = 0.0
    checks: list[Line] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As in the JSON report; figures are left out."""
        return {key: value for key, value in asdict(self).items() if key != "figures"}


@dataclass
class Diagnosis:
    """What the ladder found.

    Attributes:
        subject: name of the subject.
        findings: the most likely cause first; consequences of it are folded under it.
        rungs: in the order climbed.
        seconds: duration of the whole climb.
        consequences: the findings that were folded, for those who want every symptom.
        gauges: (check, limit) to what was held against it.
        accept: codes of errors that are known and may stay, as warnings.
    """

    subject: str
    findings: list[Finding]
    rungs: list[Rung]
    seconds: float
    consequences: list[Finding] = field(default_factory=list)
    gauges: dict[tuple[str, str], Gauge] = field(default_factory=dict)
    accept: frozenset[str] = frozenset()

    @property
    def healthy(self) -> bool:
        """Whether no finding is an error."""
        return not any(finding.severity == ERROR for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0 where it is healthy, 1 where an error was found, 2 where the ladder has no questions to such a training."""
        ended = {finding.evidence.get("ended") for finding in self.findings if finding.severity == ERROR}
        return 0 if self.healthy else 2 if ended == {OTHER_TASK} else 1

    def to_dict(self) -> dict[str, Any]:
        """The JSON report."""
        from mlxstories.runs.environment import environment

        return {
            "subject": self.subject,
            "healthy": self.healthy,
            "seconds": round(self.seconds, 3),
            "findings": [asdict(finding) for finding in self.findings],
            "rungs": [rung.to_dict() for rung in self.rungs],
            "environment": environment(),
        }
