"""The C++ compiler that MLX starts for every new kernel on a CPU: the folder it works in, and its header read once.

Each kernel includes one large header of MLX's, and reading that takes four fifths of the second that a kernel needs. A
first run on a new machine compiles some sixty.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import mlx.core as mx

_HEADER = Path("mlx/backend/cpu/compiled_preamble.h")
# as MLX's own, for g++ takes it for the same options alone
_COMMAND = ("g++", "-std=c++17", "-O3", "-Wall", "-fPIC")
_NEEDS_FREE = 1 << 30  # bytes; the header takes 50 million, and MLX must not lack room because of it


@functools.cache
def make_ready() -> None:
    """Have MLX compile in a folder that this user can write to, with its header already precompiled there."""
    folder = _own_folder()
    if folder is not None and sys.platform == "linux":
        _precompile(folder)


def is_new() -> bool:
    """Whether nothing was compiled yet where MLX will compile."""
    folder = _own_folder()
    return folder is not None and not folder.exists()


def _own_folder() -> Path | None:
    """Where MLX will compile: what it takes by itself, or where that belongs to another user, one of this user's own.

    MLX takes ``mlx`` in the temporary directory, whoever made it: on a machine of several users all but the first would
    fail, and would run what the first has compiled. None where neither can be had, which MLX says when it compiles.
    """
    temporary = Path(tempfile.gettempdir())
    folder = _within(temporary)
    made = next(place for place in (folder, *folder.parents) if place.exists())
    if os.access(made, os.W_OK):
        return folder
    own = temporary / f"mlx-of-{os.getuid()}"
    try:
        own.mkdir(mode=0o700, exist_ok=True)
        if own.lstat().st_uid == os.getuid() and not own.is_symlink():
            os.environ["TMPDIR"] = str(own)
            return _within(own)
    except OSError:
        pass
    return None


def _within(temporary: Path) -> Path:
    return temporary / "mlx" / mx.__version__ / "cpu"


def _precompile(folder: Path) -> None:
    """Precompile MLX's header where g++ looks first when it compiles a kernel in ``folder``: beside the kernel.

    A kernel then takes a fifth of the CPU time. Whatever fails here leaves it as slow as it was, and no slower.
    """
    header = Path(mx.__file__).parent / "include" / _HEADER
    ready = folder / f"{_HEADER}.gch"
    if ready.exists() or not header.exists() or shutil.which("g++") is None:
        return
    try:
        ready.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(ready.parent).free < _NEEDS_FREE:
            return
        with tempfile.TemporaryDirectory(dir=ready.parent) as begun:  # several processes may begin at once
            made = Path(begun) / "header.gch"
            include = header.parents[len(_HEADER.parts) - 1]
            command = [*_COMMAND, "-I", str(include), "-x", "c++-header", str(header), "-o", str(made)]
            subprocess.run(command, check=True, capture_output=True)
            made.replace(ready)
    except (OSError, subprocess.SubprocessError):
        return
