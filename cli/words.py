"""How the commands write durations and texts."""

from __future__ import annotations

import shutil
import sys
import textwrap

NARROWEST = 40  # columns


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


def styled(text: str):
    """A line of findings for rich, with what it is and what mends it in colour."""
    from rich.text import Text

    line = Text(text)
    line.highlight_regex(r"^\s*error\b:?", "bold red")
    line.highlight_regex(r"^\s*warning\b:?", "bold yellow")
    line.highlight_regex(r"\bFix:", "bold green")
    return line


def wrapped(text: str, indent: str = "") -> str:
    """A text wrapped to the terminal; as it is where standard output is none."""
    if not sys.stdout.isatty():
        return "\n".join(indent + line for line in text.split("\n"))
    width = max(NARROWEST, shutil.get_terminal_size().columns)
    lines = (
        textwrap.fill(line, width, initial_indent=indent, subsequent_indent=indent)
        for line in text.split("\n")
    )
    return "\n".join(lines)


def continued(command: str) -> str:
    """A command on as many lines as the terminal's width asks for, as a shell takes it."""
    if not sys.stdout.isatty():
        return command
    width = max(NARROWEST, shutil.get_terminal_size().columns)
    options = {"break_long_words": False, "break_on_hyphens": False}
    return " \\\n".join(textwrap.wrap(command, width - 2, subsequent_indent="    ", **options))
