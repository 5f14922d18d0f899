"""Durations in words, the same on the screen and in reports."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """8 s, 4 min, 2.5 h."""
    number, unit = _in_units(seconds, seconds)
    return f"{number} {unit}"


def between(shortest: float, longest: float) -> str:
    """From one duration to another: 40 to 55 s, 3 to 4 min."""
    (low, unit), (high, _) = _in_units(shortest, longest), _in_units(longest, longest)
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def _in_units(seconds: float, scale: float) -> tuple[str, str]:
    """Seconds in the unit that suits ``scale``."""
    if scale < 100:
        return f"{max(1, seconds):.0f}", "s"
    if scale < 5400:
        return f"{seconds / 60:.{1 if seconds < 600 else 0}f}".removesuffix(".0"), "min"
    return f"{seconds / 3600:.1f}", "h"
