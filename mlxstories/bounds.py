"""What values of a configuration may be: choices, flags, and numbers within bounds."""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterable

from mlxstories.errors import StoriesError

MOST_WHOLE = 10**9  # of what no machine could do, or only in years


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raises StoriesError unless ``value`` is one of ``choices``."""
    if value not in tuple(choices):
        raise StoriesError(f"{name} must be one of {', '.join(choices)}; got {value!r}.")


def check_flag(name: str, value: object) -> None:
    """Raises StoriesError unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise StoriesError(f"{name} must be true or false; got {value!r}.")


def check_number(
    name: str,
    value: object,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    whole: bool = False,
) -> None:
    """Raises StoriesError unless ``value`` is a finite number within the bounds; whole ones end at ``MOST_WHOLE``."""
    if whole and at_most is None:
        at_most = MOST_WHOLE
    bounds = [
        (words, within, bound)
        for words, within, bound in (
            ("above", operator.gt, above),
            ("at least", operator.ge, at_least),
            ("below", operator.lt, below),
            ("at most", operator.le, at_most),
        )
        if bound is not None
    ]
    good = (
        isinstance(value, int if whole else (int, float))
        and not isinstance(value, bool)
        and abs(value) <= sys.float_info.max  # of an integer, whose size has no end, too
        and all(within(value, bound) for _, within, bound in bounds)
    )
    if not good:
        what = "a whole number" if whole else "a number"
        limits = " and ".join(f"{words} {bound:,}" for words, _, bound in bounds)
        if at_least is not None and at_most is not None:
            limits = f"from {at_least:,} to {at_most:,}"
        raise StoriesError(f"{name} must be {what} {limits}; got {value!r}.")
