"""The checks of the ladder: what each asks, on which rung, which causes it can name, and what must be sound first."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields

from mlxstories.errors import StoriesError
from mlxstories.findings import CATALOGUE
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.subject import Subject
from mlxstories.ladder.verdict import Verdict

RUNGS = ("data", "init", "minimal", "sweep", "short", "trained")
ANY = ("*",)
"""``unless`` of a check that makes sense only while no error was found at all."""

FIELDS = {field.name for field in fields(Subject)}


@dataclass(frozen=True)
class Check:
    """One question to a training setup.

    Attributes:
        name: the line on the screen.
        rung: one of ``RUNGS``.
        ask: (bench, gauges) -> verdict; its docstring says what it does, why it matters, and how to fix it.
        causes: codes that its findings may have.
        needs: fields of the Subject without which it is skipped.
        unless: codes that, found as errors before, make its answer meaningless; or ``ANY``.
        limits: what its measurements are held against.
        quick: whether it is cheap enough to be asked before every training.
    """

    name: str
    rung: str
    ask: Callable[..., Verdict]
    causes: tuple[str, ...]
    needs: tuple[str, ...]
    unless: tuple[str, ...]
    limits: dict[str, Limit]
    quick: bool

    @property
    def description(self) -> str:
        """What it does, why it matters, and how to fix what it finds; Markdown."""
        return inspect.cleandoc(self.ask.__doc__ or "")

    def gauges(self) -> Gauges:
        return Gauges(self.limits)


CHECKS: dict[str, Check] = {}
"""By name, in the order in which they are asked within their rung."""


def check(
    name: str,
    *,
    rung: str,
    causes: Iterable[str] = (),
    needs: Iterable[str] = (),
    unless: Iterable[str] = (),
    quick: bool = False,
    **limits: Limit,
) -> Callable[[Callable[..., Verdict]], Callable[..., Verdict]]:
    """Register a function (bench, gauges) -> verdict as a check of the ladder; see `Check`.

    Raises:
        StoriesError: the name is taken, or the rung, a code or a field does not exist.
    """
    causes, needs, unless = tuple(causes), tuple(needs), tuple(unless)
    if name in CHECKS:
        raise StoriesError(f"there is a check {name!r} already: give yours another name")
    if rung not in RUNGS:
        raise StoriesError(f"check {name!r}: there is no rung {rung!r}; choose from {', '.join(RUNGS)}")
    for code in (*causes, *(c for c in unless if unless != ANY)):
        if code not in CATALOGUE:
            raise StoriesError(f"check {name!r}: {code!r} is in no row of the table of causes")
    for field in needs:
        if field not in FIELDS:
            raise StoriesError(f"check {name!r}: a Subject has no field {field!r}")

    def register(ask: Callable[..., Verdict]) -> Callable[..., Verdict]:
        CHECKS[name] = Check(name, rung, ask, causes, needs, unless, limits, quick)
        return ask

    return register


def checks_of(rung: str, *, quick: bool = False) -> list[Check]:
    """The checks of a rung in the order in which they are asked."""
    return [c for c in CHECKS.values() if c.rung == rung and (c.quick or not quick)]
