"""The working directory, which code under examination may leave, or delete."""

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
    """Change to what `here` returned, unless it is gone."""
    if directory is not None and os.path.isdir(directory):
        os.chdir(directory)


@contextmanager
def kept() -> Iterator[None]:
    """Restores the working directory, whatever is entered inside."""
    before = here()
    try:
        yield
    finally:
        enter(before)
