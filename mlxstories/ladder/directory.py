"""The working directory, which code that is examined may leave, or remove under itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def here() -> str | None:
    """The working directory; None if it is gone."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def enter(directory: str | None) -> None:
    """Change to what `here` returned; where that is gone, stay."""
    if directory is not None and os.path.isdir(directory):
        os.chdir(directory)


@contextmanager
def kept() -> Iterator[None]:
    """The working directory as before, whatever is entered inside."""
    before = here()
    try:
        yield
    finally:
        enter(before)
