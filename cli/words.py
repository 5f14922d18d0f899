"""How the commands write texts."""

from __future__ import annotations

import shutil
import sys
import textwrap

NARROWEST = 40  # columns


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
