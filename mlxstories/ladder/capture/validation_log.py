"""What a script prints of its own validation, compared with the losses that were seen before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlxstories.findings import ERROR, NOTE, WARNING, Finding
from mlxstories.ladder.bench.evaluation.averages import MEAN, PADDED
from mlxstories.ladder.capture.places import below
from mlxstories.ladder.capture.printed_figures import PART, Match, Printed, matches, not_a_number
from mlxstories.ladder.where.places import Line, place

if TYPE_CHECKING:
    from mlxstories.ladder.capture.script import CapturedScript

_MOVED = 0.01  # of the figure: less is no matter
_FIGURES = 2  # different ones that are the same part of a mean
_RUNG = "script"


class ValidationLog:
    """Figures of validation in the log of a script that was recorded.

    Attributes:
        matches: printed figures that are averages of losses that were seen.
        others: those that are not.
    """

    def __init__(self, script: CapturedScript):
        self.script = script
        log = Path(script.log).read_bytes()
        self.matches: list[Match] = []
        self.others: list[Printed] = []
        self._padding = padding = script.roles.padding if script.roles.masked else None
        self._not_a_number = not_a_number(log.decode("utf-8", "replace"))
        script.loop.seen.evaluations.settle()
        for evaluation in script.loop.seen.evaluations.all:
            text = log[evaluation.start : evaluation.end].decode("utf-8", "replace")
            for found in matches(evaluation, text, padding):
                (self.matches if isinstance(found, Match) else self.others).append(found)
        parts = [match for match in self.matches if match.way.startswith(PART)]
        if len({match.printed.value for match in parts}) < _FIGURES:  # it may be chance
            self.matches = [match for match in self.matches if not match.way.startswith(PART)]
            self.others += [match.printed for match in parts]

    @property
    def line(self) -> Line | None:
        """Where it validates, if a printed figure told."""
        return self._line(self.matches[0]) if self.matches else None

    @property
    def batches(self) -> list[tuple[np.ndarray, ...]]:
        """The held-out batches (inputs, targets, mask) whose average was printed first; none where it is not known what
        the model was given, or the figure is too coarse to tell."""
        exact = (m.passes for m in self.matches if not (m.printed.coarse or m.printed.loose))
        known = (passes for passes in exact if all(p.inputs is not None for p in passes))
        return [(p.inputs, p.targets, p.cells(self._padding).real) for p in next(known, [])]

    def notes(self) -> Iterator[str]:
        """One line on what was found."""
        if self.matches:
            first = self.matches[0]
            way = "mean per token" if first.way == MEAN else first.way
            over = f"{len(first.passes)} losses" if len(first.passes) > 1 else "one loss"
            yield (
                f"its own validation was seen{_at(self._line(first))}: what it prints, "
                f"{first.printed.label!r} {first.printed.value:g}, is the {way} of {over}, {first.tokens} tokens"
            )

    def findings(self) -> Iterator[Finding]:
        """An average that is not per token, where every figure is one of its kind and the difference is no rounding;
        and notes where none is an average, or there is nothing to be averaged."""
        yield from self._of_nothing()
        yield from self._unexplained()
        ways = {match.way for match in self.matches}
        first = next((m for m in self.matches if not m.printed.coarse), None)
        if self.others or len(ways) != 1 or ways == {MEAN} or first is None:
            return
        if not all(p.precise for p in first.passes):
            return
        apart = abs(first.printed.value - first.honest) / max(abs(first.honest), 1e-9)
        padded = first.way in PADDED
        if apart < _MOVED and not padded:
            return
        yield Finding(
            "padding-in-accuracy" if padded else "metric-mismatch",
            ERROR if apart >= _MOVED else WARNING,
            _RUNG,
            f"the {first.printed.label!r} that the script prints, {first.printed.value:g}, is "
            f"{'an average with ' if padded else 'the '}{first.way}: per token it is {first.honest:.4f}",
            {"printed": first.printed.value, "per_token": first.honest, "figures": len(self.matches)},
            "sum the nats of all real tokens and divide once by their number",
            place(self._line(first)),
        )

    def _of_nothing(self) -> Iterator[Finding]:
        """Figures that are no number, in a script that took no loss of held-out data until then."""
        if self._not_a_number and not self.script.loop.seen.evaluations.all:
            yield Finding(
                "not-finite",
                NOTE,
                _RUNG,
                f"the {self._not_a_number[0]!r} that the script prints is NaN, and it took no loss for it: if this is "
                "what its validation returns, that has no batches",
                {"figures": len(self._not_a_number)},
                "look at how many batches it validates on, and whether there is a whole one",
            )

    def _unexplained(self) -> Iterator[Finding]:
        """Figures of which none is an average of the losses before it, told as they stand: why is not known."""
        far = [p for p in self.others if p.passes and not p.coarse and not p.loose and _apart(p) >= _MOVED]
        if (
            self.matches
            or len({p.value for p in far}) < _FIGURES
            or not self.script.loop.seen.evaluations.whole
        ):
            return
        first = far[0]
        yield Finding(
            "metric-mismatch",
            NOTE,
            _RUNG,
            f"the {first.label!r} that the script prints, {first.value:g}, is no average of the "
            f"{len(first.passes)} losses before it, which are {first.honest:.4f} per token",
            {"printed": first.value, "per_token": first.honest, "figures": len(far)},
            "look at what it adds to them, leaves out, or divides by, if it is to be compared",
            place(self._line(first)),
        )

    def _line(self, figure: Match | Printed) -> Line | None:
        return below(figure.passes[0].lines, self.script.loop.seen)


def _apart(figure: Printed) -> float:
    return abs(figure.value - figure.honest) / max(abs(figure.honest), 1e-9)


def _at(line: Line | None) -> str:
    return f" at {line}" if line else ""
