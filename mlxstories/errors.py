"""The one exception for bad input, and how its message is kept to one line of readable length."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

LONGEST = 1000  # characters of a message
_BEGINNING = LONGEST * 2 // 3  # what is wrong stands there, what to do at the end


class StoriesError(Exception):
    """Bad input from the user: one line that names the input, what is wrong and what to do.

    The command line prints it without a traceback and ends with exit code 2. Line breaks and other unprintable
    characters, which names of files and messages of libraries may hold, are made visible; of a long line the middle
    is left out.
    """

    def __init__(self, message: str):
        super().__init__(one_line(message))


def one_line(message: str) -> str:
    """A message of any length and content as one printable line of about ``LONGEST`` characters."""
    if len(message) > LONGEST:
        left_out = f" … ({len(message) - LONGEST:,} characters left out) … "
        message = message[:_BEGINNING] + left_out + message[_BEGINNING - LONGEST :]
    text = " ".join(message.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ " Did you mean 'train'?" where a known word is spelled much like ``word``, else nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
    return f" Did you mean {near[0]!r}?" if near else ""


def own_arguments(named: str = "train.py") -> str:
    """Where a script's own arguments belong; ``named`` is the script, with ``-m`` before a module."""
    return f"the script's own arguments follow --: mlxstories debug {named} -- ARGUMENTS"


def listed(names: Iterable[object], most: int = 20) -> str:
    """Names separated by commas; of more than ``most``, how many more there are."""
    words = [str(name) for name in names]
    more = len(words) - most
    return ", ".join(words[:most]) + (f" and {more:,} more" if more > 0 else "")


def shortened(names: Sequence[str], most: int = 3) -> str:
    """The first names separated by commas; of more than ``most``, dots for the rest."""
    return ", ".join(names[:most]) + (" ..." if names[most:] else "")
