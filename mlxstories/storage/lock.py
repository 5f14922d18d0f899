"""One process at a time writes to a run directory.

The lock is the kernel's, on ``<run>/.lock``: it ends with the process, however that ends, so that none is ever stale.
The file's text only says who held it last. Readers (``sample``, ``plot``) need no lock.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from mlxstories.errors import StoriesError

NAME = ".lock"


class Busy(StoriesError):
    """Another process trains in the run directory."""


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the lock of ``directory``; within one process it may be held several times.

    Raises:
        Busy: another process holds it.
    """
    path = directory.resolve() / NAME
    lock = FileLock(path, timeout=0, thread_local=False, is_singleton=True)
    try:
        lock.acquire()
    except Timeout as error:
        raise Busy(f"{directory} is in use by {_holder(path)}: wait for it, or stop it first.") from error
    except OSError as error:
        raise StoriesError(f"cannot lock {directory}: {error.strerror}.") from error
    try:
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            path.write_text(f"process {os.getpid()} on {platform.node()}\n", encoding="utf-8")
        yield
    finally:
        lock.release()


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_bytes()[:200].decode("utf-8", "replace").strip() or "another process"
    return "another process"
