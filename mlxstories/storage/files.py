"""Files that are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlxstories.errors import StoriesError

MOST_TEXT = 1 << 27  # bytes of configurations, tokenizers and reports
PARTIAL = ".mlxstories-partial"  # how the names of what is being written end; they begin with a dot


def scratch(process: int) -> str:
    """What the names of the temporary folders of a process begin with, by which they are found when it has fallen."""
    return f"mlxstories-{process}-"


@contextlib.contextmanager
def writing(place: Path | str) -> Iterator[None]:
    """Turn a failure to write into one clear line."""
    try:
        yield
    except OSError as error:
        raise StoriesError(f"cannot write to {place}: {str(error.strerror or error).rstrip('.')}.") from error


def check_writable(path: Path) -> None:
    """Ask for a file that is written later, if at all; nothing is left behind.

    Raises:
        StoriesError: it could not be written.
    """
    with writing(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not path.exists() or path.is_file():  # neither a device nor a pipe
            folder = next(parent for parent in path.absolute().parents if parent.exists())
            tempfile.TemporaryFile(dir=folder).close()


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A hidden directory to fill. When the block ends well, all of it is forced to the disk and renamed to ``path``,
    whose former content goes; otherwise it is removed."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=PARTIAL, dir=path.parent))
        try:
            yield staging
            staging.chmod(0o755)
            for folder, _, names in os.walk(staging, topdown=False):
                for name in names:
                    sync(Path(folder, name))
                sync(Path(folder))
            if path.exists():
                remove_directory(path)
            staging.rename(path)
            sync(path.parent)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise


def remove_directory(path: Path) -> None:
    """Remove a directory; seen by its name it is there whole or not at all."""
    if path.is_symlink():  # its target is none of ours
        path.unlink()
        return
    hidden = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=PARTIAL, dir=path.parent))
    path.rename(hidden)  # over the empty directory
    shutil.rmtree(hidden, ignore_errors=True)


def remove_partial(folder: Path, older_than: float = float("inf")) -> None:
    """Remove what killed processes left half-written in ``folder``, if it is older than a POSIX time."""
    for path in folder.glob(f".*{PARTIAL}"):
        with contextlib.suppress(OSError):
            if path.lstat().st_mtime < older_than:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()


def read_text(path: Path) -> str:
    """The text of a file of configuration; ValueError if it is not UTF-8.

    Raises:
        StoriesError: it is a pipe or device, at which reading would wait, or too large to be such a file.
    """
    if path.exists() and not path.is_file():
        raise StoriesError(f"{path} is no regular file: give another.")
    if path.exists() and path.stat().st_size > MOST_TEXT:
        raise StoriesError(f"{path} is larger than {MOST_TEXT >> 20} MiB: it is not what it should be.")
    return path.read_text(encoding="utf-8")


def write_text(path: Path, text: str) -> None:
    """Write beside ``path``, then rename: the old content or the new one, never a part. A device or a pipe, such as
    /dev/stdout, stays what it is and is written to."""
    content = text.encode("utf-8")
    with writing(path):
        if path.exists() and (not (path.is_file() or path.is_dir()) or path.parent == Path("/dev")):
            # of a pipe that nobody reads an error, no wait
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            os.set_blocking(descriptor, True)
            with open(descriptor, "wb") as file:
                file.write(content)
            return
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PARTIAL, dir=path.parent)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
            os.chmod(name, 0o644)
            sync(Path(name))
            os.replace(name, path)
            sync(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise


def write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    try:
        write_text(path, text)
    except UnicodeEncodeError:  # half a character, which JSON can hold as an escape alone
        write_text(path, json.dumps(value, indent=2) + "\n")


def sync(path: Path) -> None:
    """Force a file or a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        full = getattr(fcntl, "F_FULLFSYNC", None)  # on macOS, fsync stops at the drive's cache
        if full is not None:
            with contextlib.suppress(OSError):  # file systems that are not on a drive
                fcntl.fcntl(descriptor, full)
                return
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path, report: Callable[[int], None] = lambda count: None) -> str:
    """SHA-256 of a file in hexadecimal; ``report`` receives the bytes of each block that was read."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            report(len(block))
    return digest.hexdigest()
