"""What a check says: passed, failed or skipped, with its figure and its findings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mlxstories.findings import ERROR, NOTE, WARNING, Place

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
OUT_OF_TIME, OTHER_TASK = "time limit", "no next token"
"""As ``ended`` in the evidence of a `subject-error`: why nothing more was asked, where nothing was raised."""


@dataclass(frozen=True)
class Draft:
    """A finding before the climb adds its rung and the limits that were consulted."""

    code: str
    severity: str
    message: str
    fix: str
    where: str | Place | None
    evidence: dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """One answer of a check.

    Attributes:
        status: passed, failed or skipped.
        detail: the figure that decided, or the reason for skipping.
        drafts: findings that come with it.
        figures: data of figures by name.
    """

    status: str
    detail: str = ""
    drafts: tuple[Draft, ...] = ()
    figures: dict[str, Any] = field(default_factory=dict)


def passed(detail: str = "", *drafts: Draft, **figures) -> Verdict:
    """The check holds; ``drafts`` are warnings and notes that come with it, ``figures`` the data of figures."""
    return Verdict(PASSED, detail, drafts, figures)


def skipped(reason: str, *drafts: Draft, **figures) -> Verdict:
    """The question could not be asked."""
    return Verdict(SKIPPED, reason, drafts, figures)


def failed(detail: str, *drafts: Draft, **figures) -> Verdict:
    """The check does not hold, for the causes in ``drafts``."""
    return Verdict(FAILED, detail, drafts, figures)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Of several answers to one question, the first that failed; else one with a finding; else one that passed."""
    return min(verdicts, key=lambda one: (one.status != FAILED, not one.drafts, one.status == SKIPPED))


def error(code: str, message: str, *, fix: str, where: str | Place | None = None, **evidence) -> Draft:
    """A finding that says the result is wrong or training fails."""
    return Draft(code, ERROR, message, fix, where, evidence)


def warning(code: str, message: str, *, fix: str, where: str | Place | None = None, **evidence) -> Draft:
    """A finding that says the setup works, though not as well as it could."""
    return Draft(code, WARNING, message, fix, where, evidence)


def note(code: str, message: str, *, fix: str, where: str | Place | None = None, **evidence) -> Draft:
    """A finding that is worth knowing and no fault."""
    return Draft(code, NOTE, message, fix, where, evidence)
