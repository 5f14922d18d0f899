"""One process at a time writes to a run directory.

The lock is a POSIX record lock on ``<run>/.lock``. The kernel takes it back when the process ends, however it ends,
so that no lock is ever stale; the file's text only says who held it last. Readers (``sample``, ``plot``) need none.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
import threading
from collections.abc import Iterator
from pathlib import Path

from mlxstories.errors import StoriesError

NAME = ".lock"

_guard = threading.Lock()
# Record locks belong to the process and end with the first close of the file, so each is opened once.
_held: dict[tuple[int, Path], list[int]] = {}  # (process, directory): file descriptor, how often it is held


class Busy(StoriesError):
    """Another process trains in the run directory."""


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the lock of ``directory``; within one process it may be held several times.

    Raises:
        Busy: another process holds it.
    """
    key = (os.getpid(), directory.resolve())
    with _guard:
        entry = _held.setdefault(key, [-1, 0])
        if not entry[1]:
            try:
                entry[0] = _acquire(directory)
            except BaseException:
                del _held[key]
                raise
        entry[1] += 1
    try:
        yield
    finally:
        with _guard:
            entry[1] -= 1
            if not entry[1]:
                os.close(entry[0])
                del _held[key]


def _acquire(directory: Path) -> int:
    path = directory / NAME
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StoriesError(f"cannot write to {directory}: {error.strerror}.") from error
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 200).decode("utf-8", "replace").strip() or "another process"
        os.close(descriptor)
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise Busy(f"{directory} is in use by {holder}: wait for it, or stop it first.") from error
        raise StoriesError(f"cannot lock {path}: {error.strerror}.") from error
    with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode(), 0)
    return descriptor
