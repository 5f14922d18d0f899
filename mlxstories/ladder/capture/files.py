"""A script's writing, kept in a folder of its own: the script reads back what it wrote, and nothing else changes."""

from __future__ import annotations

import builtins
import errno
import io
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxstories.ladder.capture.copies import leaves
from mlxstories.ladder.patches import Patches
from mlxstories.storage.files import scratch

# Downloads may fill their caches.
_FREE = ("/dev", "/proc", Path.home() / ".cache", os.environ.get("HF_HOME") or "/dev")
_CHANGING = ("remove", "unlink", "rmdir", "truncate", "chmod", "chown", "utime", "setxattr", "removexattr")
_REMOVING = ("remove", "unlink", "rmdir")
_MOVING = ("rename", "replace")
_LINKING = ("link", "symlink")
_MAKING = ("mkdir", "mkfifo", "mknod")
_LOOKING = ("stat", "lstat", "access", "readlink", "scandir", "listdir", "chdir", "listxattr", "getxattr")
# In Python 3.10 Path calls copies of these functions, which this object holds.
_PATHS = getattr(pathlib, "_normal_accessor", None)
_ROOM = 2**28  # bytes of arrays that MLX may save there
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _past_open() -> Iterator[tuple[Any, str, int, bool]]:
    """Functions past ``open`` that are handed a file's name, as (owner, name, its place among their arguments, whether
    they write)."""
    yield mx, "load", 0, False
    with suppress(ImportError):
        import safetensors.numpy  # noqa: F401  (before a script would bind what stands here for a while)

        holders = {"safetensors", *(f"safetensors.{kind}" for kind in ("numpy", "torch", "flax", "mlx"))}
        for holder in (sys.modules[name] for name in sorted(holders & sys.modules.keys())):
            for name, place, writes in (("safe_open", 0, False), ("serialize_file", 1, True)):
                if hasattr(holder, name):
                    yield holder, name, place, writes


class Overlay:
    """Files that the script writes, under a temporary folder instead of where it wanted them.

    Beyond its reach is what is written past Python's ``open`` and ``os``: by other programs and by libraries in C.
    """

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix=scratch(os.getpid()))
        self.root = Path(self._folder.name)
        self._descriptors: set[int] = set()  # of folders held here
        self._gone: set[str] = set()  # what was there before, and the script has removed
        self._saved = 0  # bytes

    def close(self) -> None:
        self._folder.cleanup()

    def install(self, patches: Patches) -> None:
        """Redirect ``open`` and the functions of ``os`` that change files or look at them."""
        real = builtins.open
        self._lstat = os.lstat

        def opened(file, mode="r", *args, **kwargs):
            return real(self._placed(file, bool(set(mode) & set("wax+")), "w" in mode), mode, *args, **kwargs)

        patches.replace(os, "open", self._opening(os.open))
        for owner, name, place, writes in _past_open():
            patches.replace(owner, name, self._in_c(getattr(owner, name), place, writes))
        for owner in filter(None, (builtins, io, _PATHS)):
            patches.replace(owner, "open", opened)
        instead = {name: self._moving(getattr(os, name)) for name in _MOVING}
        instead |= {name: self._linking(getattr(os, name)) for name in _LINKING}
        for done, names in ((self._make, _MAKING), (self._change, _CHANGING), (self._look, _LOOKING)):
            there = filter(partial(hasattr, os), names)  # a Mac has none of the last
            instead |= {name: self._free_or(getattr(os, name), done) for name in there}
        for name, function in instead.items():
            patches.replace(os, name, function)
            if hasattr(_PATHS, name):
                patches.replace(_PATHS, name, function)

    def save(self, real: Callable, args: tuple, kwargs: dict[str, Any]) -> bool:
        """Have a function of MLX's save its arrays here, where they are found again; False where there is no room."""
        size = sum(array.nbytes for _, array in leaves([args, kwargs]))
        if self._saved + size > _ROOM:
            return False
        self._saved += size
        self._in_c(real, 0, True)(*args, **kwargs)
        return True

    def held(self, path) -> Path | None:
        """Where a path's content is held, whether or not anything was written there; None where it is free."""
        if isinstance(path, int) or path is None:
            return None
        full = os.path.abspath(os.fsdecode(path))
        if any(Path(full).is_relative_to(free) for free in (*_FREE, self.root)):
            return None
        return self.root / full.lstrip(os.sep).replace(":", "")

    def _placed(self, file, writing: bool, anew: bool):
        """Where to open a file: a file that exists and is written to is copied first."""
        held = self.held(file)
        if held is None:
            return file
        if not writing:
            return held if os.path.lexists(held) or self._is_gone(file) else file
        os.makedirs(held.parent, exist_ok=True)
        origin = file
        if held.is_symlink():  # it may lead to a file that must stay as it is
            origin = os.path.realpath(held)
            held.unlink()
        if not anew and not held.exists() and os.path.isfile(origin) and not self._is_gone(file):
            shutil.copyfile(origin, held)
        return held

    def _in_c(self, real: Callable, place: int, writes: bool) -> Callable:
        """A C function that opens files itself is given the place where the script's files are kept."""

        def call(*args, **kwargs):
            if len(args) > place and isinstance(file := args[place], (str, os.PathLike)):
                args = (*args[:place], str(self._placed(file, writes, writes)), *args[place + 1 :])
            elif "filename" in kwargs:
                kwargs["filename"] = str(self._placed(kwargs["filename"], writes, writes))
            return real(*args, **kwargs)

        return call

    def _opening(self, real: Callable) -> Callable:
        def opened(path, flags, mode=0o777, *, dir_fd=None):
            inside = dir_fd in self._descriptors
            if dir_fd is None:
                placed = self._placed(path, bool(flags & _WRITING), bool(flags & os.O_TRUNC))
                inside = placed is not path
                descriptor = real(placed, flags, mode)
            else:
                descriptor = real(path, flags, mode, dir_fd=dir_fd)
            (self._descriptors.add if inside else self._descriptors.discard)(descriptor)
            return descriptor

        return opened

    def _free_or(self, real: Callable, instead: Callable[..., Any]) -> Callable:
        """``real`` for what is free; else ``instead(real, path, held, *arguments)``."""

        def call(path=".", *args, **kwargs):
            folder = kwargs.get("dir_fd")
            if folder is not None and folder not in self._descriptors and instead == self._change:
                return None  # in a folder that was there before
            held = self.held(path) if folder is None else None
            return real(path, *args, **kwargs) if held is None else instead(real, path, held, *args, **kwargs)

        return call

    def _make(self, real, _path, held: Path, *args, **options) -> None:
        os.makedirs(held.parent, exist_ok=True)
        if real.__name__ != "mkdir" or not held.exists():
            real(held, *args, **options)

    def _change(self, real, path, held: Path, *args, **options) -> Any:
        """A file that was there before stays, out of sight once removed; one that is nowhere is reported missing."""
        there = os.path.lexists(held)
        if not there and not self._was(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        result = real(held, *args, **options) if there else None
        if real.__name__ in _REMOVING:
            self._gone.add(os.path.abspath(os.fsdecode(path)))
        return result

    def _look(self, real, path, held: Path, *args, **options) -> Any:
        """A folder that was there before is shown as it was."""
        there = os.path.lexists(held) and not (held.is_dir() and self._was(path))
        return real(held if there or self._is_gone(path) else path, *args, **options)

    def _is_gone(self, path) -> bool:
        """Whether the script has removed it, or a folder around it, as it was before."""
        full = Path(os.path.abspath(os.fsdecode(path)))
        return any(str(at) in self._gone for at in (full, *full.parents)) if self._gone else False

    def _was(self, path) -> bool:
        if self._is_gone(path):
            return False
        try:
            self._lstat(path)
        except OSError:
            return False
        return True

    def _moving(self, real: Callable) -> Callable:
        def move(src, dst, **options):
            start, end = self.held(src) or Path(os.fsdecode(src)), self.held(dst) or Path(os.fsdecode(dst))
            os.makedirs(end.parent, exist_ok=True)
            if self.held(src) is None or os.path.lexists(start):
                real(start, end)
            elif not self._was(src):  # what was there before stays
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), src, None, dst)

        return move

    def _linking(self, real: Callable) -> Callable:
        """A link is a symbolic one here, to what is held or to what was there before."""

        def link(src, dst, *args, **options):
            if (at := self.held(dst)) is None:
                return real(src, dst, *args, **options)
            folder = os.path.dirname(os.path.abspath(os.fsdecode(dst))) if real.__name__ == "symlink" else ""
            full = os.path.abspath(os.path.join(folder, os.fsdecode(src)))
            held = self.held(full)
            os.makedirs(at.parent, exist_ok=True)
            os.symlink(held if held is not None and os.path.lexists(held) else full, at)

        return link
