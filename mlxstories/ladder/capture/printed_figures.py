"""The figures of held-out data that a script prints, as averages of the losses that it computed before."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import exp, log

from mlxstories.ladder.bench.evaluation.averages import MEAN, Average, averages_of
from mlxstories.ladder.capture.passes import Evaluation, Pass

_NUMBER = re.compile(r"-?\d+\.\d+(?:[eE][+-]?\d+)?")
_NAN = re.compile(r"(?<![a-z])nan(?![a-z])", re.I)
_HELD_OUT = re.compile(r"(?<![a-z])(val|valid\w*|eval\w*|test|dev|held\w*|perplexity|ppl)(?![a-z])", re.I)
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_OTHER = re.compile(r"train|time|took|second|sec\b|rate|lr|norm|mem|ms\b|/s|best", re.I)
_FORMS = (  # what a label promises, from an average
    (re.compile(r"perplexity|ppl", re.I), lambda average: exp(min(average.loss, 700.0))),
    (re.compile(r"bits|bpc|bpb|bpt", re.I), lambda average: average.loss / log(2)),
    (re.compile(r"acc|hits", re.I), lambda average: average.accuracy),
    (re.compile(""), lambda average: average.loss),
)
_DIGITS = 3  # decimals from which on a match is no coincidence
PART = "mean per token, divided by "
_PARTS = 16  # at most: of more, every figure is near one
_EXACT, _HALF = 1e-5, 4e-3  # of a value, in float32 and in 16 bits


@dataclass
class Printed:
    """A number in the log.

    Attributes:
        label: the words before it on its line.
        half: half a unit of its last digit.
        loose: whether only the line as a whole speaks of held-out data.
        passes: the losses before it, where it is none of their averages.
        honest: what would have been printed of them per token.
    """

    label: str
    value: float
    half: float
    loose: bool = False
    passes: list[Pass] = field(default_factory=list)
    honest: float = float("nan")

    @property
    def coarse(self) -> bool:
        return self.half > 0.6 * 10**-_DIGITS

    def form(self, average: Average) -> float:
        """What this label promises of an average."""
        return next(form for words, form in _FORMS if words.search(self.label))(average)


@dataclass
class Match:
    """A printed figure that is an average of losses that were seen.

    Attributes:
        way: of averaging, as `averages_of` names it.
        honest: what would have been printed per token.
        tokens: real ones in the passes.
    """

    printed: Printed
    way: str
    honest: float
    passes: list[Pass]
    tokens: int


def matches(evaluation: Evaluation, log: str, padding: int | None) -> Iterator[Match | Printed]:
    """Figures of held-out data that were printed after an evaluation, each matched to the losses, or as it stands where
    nothing that was seen gives it."""
    groups = [(group, [p.cells(padding) for p in group]) for group in _groups(evaluation)]
    known = [
        (group, averages_of(cells), sum(int(c.real.sum()) for c in cells))
        for group, cells in groups
        if all(c.real.any() for c in cells)
    ]
    # The honest one first, of any group.
    ways = sorted(((way, *of) for of in known for way in of[1]), key=lambda item: item[0] != MEAN)
    for printed in numbers(log):
        for way, group, averages, tokens in ways:
            if (way == MEAN or not printed.loose) and _near(
                printed, printed.form(averages[way]), all(p.precise for p in group)
            ):
                yield Match(printed, way, printed.form(averages[MEAN]), group, tokens)
                break
        else:
            if not printed.loose:
                yield _part(printed, known) or _unexplained(printed, known)


def _unexplained(printed: Printed, known: list[tuple]) -> Printed:
    """With what all losses before it are per token, where they can be averaged."""
    for group, averages, _ in known[:1]:
        return replace(printed, passes=group, honest=printed.form(averages[MEAN]))
    return printed


def _part(printed: Printed, known: list[tuple]) -> Match | None:
    """A loss that is a whole fraction of a mean per token, such as one over the gradients that an update
    accumulates."""
    for group, averages, tokens in known:
        honest = averages[MEAN].loss
        number = round(honest / printed.value) if printed.value > 0 else 0
        whole = 2 <= number <= _PARTS and printed.form(averages[MEAN]) == honest
        if whole and _near(printed, honest / number, all(p.precise for p in group)):
            return Match(printed, f"{PART}{number}", honest, group, tokens)
    return None


def _groups(evaluation: Evaluation) -> list[list[Pass]]:
    """All passes, those of each line, and halves of these: of training and held-out data, as a rule."""
    parts = [list(part) for _, part in itertools.groupby(evaluation.passes, key=lambda p: p.lines)]
    groups = [evaluation.passes, *(parts if len(parts) > 1 else [])]
    for part in parts:
        half = len(part) // 2
        groups += [part[:half], part[half:]] if len(part) == 2 * half else []
    return groups


def _near(printed: Printed, value: float, precise: bool) -> bool:
    room = (_EXACT if precise else _HALF) * max(1.0, abs(value))
    return abs(printed.value - value) <= 1.02 * printed.half + room


def numbers(log: str) -> Iterator[Printed]:
    """Figures of held-out data in what was printed, by their names."""
    for label, number, named in _labelled(log, _NUMBER):
        mantissa, _, power = number.lower().partition("e")
        digits = len(mantissa.partition(".")[2]) - int(power or 0)
        yield Printed(label, float(number), 0.5 * 10.0**-digits, not named)


def not_a_number(log: str) -> list[str]:
    """Names of figures of held-out data that were printed as NaN."""
    return [label for label, _, named in _labelled(log, _NAN) if named]


def _labelled(log: str, figure: re.Pattern) -> Iterator[tuple[str, str, bool]]:
    """Figures of held-out data, each behind its label, and whether that says so and not only the line as a whole."""
    for line in _COLOURS.sub("", log).splitlines():
        since, speaks = 0, _HELD_OUT.search(line)
        for number in figure.finditer(line):
            before, since = line[max(since, number.start() - 40) : number.start()], number.end()
            label = re.split(r"[,|{\[(]|\s-\s|:\s", before.rstrip(" :=|,'\"{[("))[-1].strip(" '\"0123456789")
            held = _HELD_OUT.search(label)
            if (held or (speaks and "loss" in label.lower())) and not _OTHER.search(label):
                yield label, number[0], bool(held)
