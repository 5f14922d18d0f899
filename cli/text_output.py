"""How the commands write texts."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from typing import TextIO
from unicodedata import category

import click

NARROWEST = 40  # columns
REPLACED = "\N{REPLACEMENT CHARACTER}"


def styled(text: str):
    """A line of findings for rich, with what it is and what mends it in colour."""
    from rich.text import Text

    line = Text(text)
    line.highlight_regex(r"^\s*error\b:?", "bold red")
    line.highlight_regex(r"^\s*warning\b:?", "bold yellow")
    line.highlight_regex(r"\bFix:", "bold green")
    return line


def visible(text: str) -> str:
    """A text whose control characters, which a model of bytes may tell, cannot move a terminal's cursor."""
    return "".join(REPLACED if category(c) == "Cc" and c not in "\n\t" else c for c in text)


def wrapped(text: str, indent: str = "", stream: TextIO | None = None, hanging: str = "") -> str:
    """A text wrapped to the terminal; as it is where the stream, standard output if none is given, is no terminal.

    ``hanging`` is a further indent of the lines that a longer one is broken into, the first aside.
    """
    if not (stream or sys.stdout).isatty():
        return "\n".join(indent + line for line in text.split("\n"))
    wrapper = textwrap.TextWrapper(
        _width(), initial_indent=indent, subsequent_indent=indent + hanging, break_on_hyphens=False
    )
    return "\n".join(map(wrapper.fill, visible(text).split("\n")))


class GrowingText:
    """Shows a text while it grows; at a terminal its lines break between words."""

    def __init__(self):
        self._terminal, self._column, self._word = sys.stdout.isatty(), 0, ""

    def add(self, text: str) -> None:
        if not self._terminal:
            click.echo(text, nl=False)
            return
        for character in visible(text):
            if character.isspace():
                self._end_word()
                if character == "\n":
                    self._end_line()
                else:
                    self._write(" ")
            else:
                self._word += character

    def end(self) -> None:
        self._end_word()
        click.echo("\n")

    def _end_word(self) -> None:
        if self._column and self._column + len(self._word) > _width():
            self._end_line()
        self._write(self._word)
        self._word = ""

    def _end_line(self) -> None:
        click.echo()
        self._column = 0

    def _write(self, text: str) -> None:
        click.echo(text, nl=False)
        self._column += len(text)


def _width() -> int:
    return max(NARROWEST, shutil.get_terminal_size().columns)


def continued(command: str) -> str:
    """A command on as many lines as the terminal's width asks for, as a shell takes it."""
    if not sys.stdout.isatty():
        return command
    # what is quoted is one word to a shell
    whole = re.sub(r'''\'[^\']*\'|"[^"]*"''', lambda quoted: quoted[0].replace(" ", "\0"), command)
    wrapper = textwrap.TextWrapper(
        _width() - 2, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
    return " \\\n".join(wrapper.wrap(whole)).replace("\0", " ")
