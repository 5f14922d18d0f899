"""Where MLX compiles for a CPU: a folder of the machine's, which belongs to the user who came first."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path

import mlx.core as mx


@functools.cache
def find_room() -> None:
    """Have MLX compile in a folder of this user's own, where another user's is in its place.

    MLX takes ``mlx`` in the temporary directory, whoever made it: on a machine of several users all but the first would
    fail, and would run what the first has compiled.
    """
    folder = Path(tempfile.gettempdir())
    shared = folder / "mlx" / mx.__version__ / "cpu"
    made = next(place for place in (shared, *shared.parents) if place.exists())
    if os.access(made, os.W_OK):
        return
    own = folder / f"mlx-of-{os.getuid()}"
    try:
        own.mkdir(mode=0o700, exist_ok=True)
        if own.lstat().st_uid == os.getuid() and not own.is_symlink():
            os.environ["TMPDIR"] = str(own)
    except OSError:  # no room at all, which MLX says when it compiles
        return
