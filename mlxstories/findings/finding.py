"""One thing that is wrong with a training setup, or worth knowing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mlxstories.findings.place import Place

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Attributes:
        code: of a cause in the table of causes.
        severity: ``error`` (the result is wrong or training fails), ``warning`` or ``note``.
        rung: the rung that found it, or ``training``.
        message: one sentence.
        evidence: numbers that prove it; ``limits`` holds those that they were held against, ``consequences`` the
            codes folded under this finding.
        fix: one sentence.
        where: the `Place` in the user's code; if that is not known, a part of the setup or a parameter's path, or None.
    """

    code: str
    severity: str
    rung: str
    message: str
    evidence: dict[str, Any] = field(default_factory=dict)
    fix: str = ""
    where: str | Place | None = None
