"""The file that holds what a script prints: it stays for the user to read, and goes with a later one."""

from __future__ import annotations

import functools
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO

_PREFIX, _SUFFIX = "mlxstories-", ".log"
_KEPT = 24 * 3600.0  # seconds after the last line


def new_log() -> TextIO:
    """An empty file in the temporary folder, from which those of this user that are a day old are removed."""
    _remove_old(Path(tempfile.gettempdir()))
    return tempfile.NamedTemporaryFile(
        "w",
        buffering=1,
        prefix=_PREFIX,
        suffix=_SUFFIX,
        delete=False,
        encoding="utf-8",
        errors="replace",
    )


@functools.cache
def _remove_old(folder: Path) -> None:
    """Once a process: there may be a thousand."""
    for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        with suppress(OSError):  # another process was faster
            found = path.lstat()
            if found.st_uid == os.getuid() and found.st_mtime < time.time() - _KEPT:
                path.unlink()
