"""Lines that were broken at a width, as in Project Gutenberg's books and in PDF, joined to paragraphs.

A model would spend itself on where lines end, and spell the words that begin them apart from the same words elsewhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

LOOKED_AT = 2000  # lines of a file
_LONGEST = 1000  # characters of a line; no width is so wide
_WIDTHS = range(40, 101)  # characters
_FEWEST = 8  # lines that end within a sentence
_FEWEST_WORDS = 4  # of a line on average: tables have fewer
_OFTEN = 0.5  # of these lines, had the next word no room: on books 0.6 to 0.99, on plays 0.33
_NEARLY = 0.75  # of the width is long enough for a line that ends within a sentence to go on
_ENDS = ".!?:…\"'”’»"  # of a sentence
_BEGINNINGS = "\"'“‘«("  # of a line that may go on from the one before, letters and digits aside


def width_of(lines: Iterable[str]) -> int | None:
    """The width in characters at which lines were broken; None where they end by themselves, as those of verse do.

    Of the lines that end within a sentence most are then so long that the next word had no room.
    """
    kept = []
    for line in lines:
        if len(line) > _LONGEST:
            return None
        kept.append(line.rstrip())
    going = [(line, after) for line, after in itertools.pairwise(kept) if _may_go_on(line, after)]
    if not going:
        return None
    lengths = sorted(len(line) for line, _ in going)
    width = lengths[int(0.95 * (len(lengths) - 1))]  # a few lines may be longer
    within = [(line, after) for line, after in going if line[-1] not in _ENDS]
    if len(within) < _FEWEST or width not in _WIDTHS:
        return None
    if sum(len(line.split()) for line, _ in within) < _FEWEST_WORDS * len(within):
        return None
    full = sum(_full(line, after, width) for line, after in within)
    return width if full > _OFTEN * len(within) else None


def joined(story: str, width: int) -> str:
    """A story with the lines joined that were broken at ``width``; where a paragraph ends, its line does."""
    lines = [line.rstrip() for line in story.split("\n")]
    text = lines[0]
    for line, after in itertools.pairwise(lines):
        if not _may_go_on(line, after) or not (_full(line, after, width) or _within(line, width)):
            text += "\n" + after
        elif line.endswith(("-", "—")):
            text += after
        else:
            text += " " + after
    return text


def _may_go_on(line: str, after: str) -> bool:
    """Whether both have words, and the second is not set off by an indent or a bullet."""
    return bool(line and after) and (after[0].isalnum() or after[0] in _BEGINNINGS)


def _full(line: str, after: str, width: int) -> bool:
    return len(line) + 1 + len(after.split()[0]) > width


def _within(line: str, width: int) -> bool:
    return line[-1] not in _ENDS and len(line) >= _NEARLY * width
