"""Range checks shared by the configurations of this package."""

from __future__ import annotations

import math
from collections.abc import Iterable

from mlxstories.errors import StoriesError


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
    """Raises StoriesError unless ``value`` is a finite number within the bounds."""
    kind = int if whole else (int, float)
    wanted = [
        text.format(bound)
        for text, bound in (
            ("above {}", above),
            ("at least {}", at_least),
            ("below {}", below),
            ("at most {}", at_most),
        )
        if bound is not None
    ]
    good = (
        isinstance(value, kind)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and (above is None or value > above)
        and (at_least is None or value >= at_least)
        and (below is None or value < below)
        and (at_most is None or value <= at_most)
    )
    if not good:
        what = "a whole number" if whole else "a number"
        raise StoriesError(f"{name} must be {what} {' and '.join(wanted)}; got {value!r}.")
