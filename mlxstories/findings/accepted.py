"""Errors that are known and may stay, such as a leak that is meant: they are told as warnings."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable

from mlxstories.errors import StoriesError, did_you_mean
from mlxstories.findings.causes import CATALOGUE
from mlxstories.findings.finding import ERROR, WARNING, Finding

_NEVER = ("subject-error", "token-out-of-range")  # after which nothing else can be examined


def acceptable(codes: Iterable[str]) -> frozenset[str]:
    """The codes, each of which names an error that can stay.

    Raises:
        StoriesError: a code is not in the catalogue, or nothing can be examined behind its error.
    """
    codes = frozenset(codes)
    for code in sorted(codes):
        if code not in CATALOGUE:
            raise StoriesError(
                f"cannot accept {code!r}: it is no code of the catalogue (docs/ladder.md)."
                f"{did_you_mean(code, CATALOGUE)}"
            )
        if code in _NEVER:
            raise StoriesError(
                f"cannot accept {code}: it has to be fixed, for nothing can be examined behind it"
            )
    return codes


def accepted(finding: Finding, codes: Collection[str]) -> Finding:
    """The finding; an error of one of these codes as a warning whose evidence says ``accepted``."""
    if finding.severity != ERROR or finding.code not in codes:
        return finding
    return dataclasses.replace(finding, severity=WARNING, evidence={**finding.evidence, "accepted": True})
