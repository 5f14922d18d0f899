"""A script's writing, held in a folder of its own: it reads back what it wrote, and nothing else has changed."""

from __future__ import annotations

import builtins
import io
import os
import tempfile
from pathlib import Path

from mlxstories.ladder.patches import Patches

# Downloads may fill their caches.
_FREE = ("/dev/", "/proc/", str(Path.home() / ".cache"), os.environ.get("HF_HOME") or "/dev/")
_CHANGING = ("remove", "unlink", "rmdir", "mkdir", "rename", "replace")


class Overlay:
    """Files that the script writes, under a temporary folder instead of where it wanted them."""

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="mlxstories-")
        self.root = Path(self._folder.name)

    def close(self) -> None:
        self._folder.cleanup()

    def install(self, patches: Patches) -> None:
        """Redirect ``open`` and the functions of ``os`` that change files."""
        real = builtins.open

        def opened(file, mode="r", *args, **kwargs):
            return real(self._placed(file, mode), mode, *args, **kwargs)

        patches.replace(builtins, "open", opened)
        patches.replace(io, "open", opened)
        for name in _CHANGING:
            patches.replace(os, name, self._changing(getattr(os, name)))

    def held(self, path) -> Path | None:
        """Where a path's content is held, whether or not anything was written there; None where it is free."""
        if isinstance(path, int):
            return None
        full = os.path.abspath(os.fsdecode(path))
        if full.startswith((*_FREE, str(self.root))):
            return None
        return self.root / full.lstrip(os.sep).replace(":", "")

    def _placed(self, file, mode: str):
        held = self.held(file)
        if held is None:
            return file
        if set(mode) & set("wax+"):
            os.makedirs(held.parent, exist_ok=True)
            if set(mode) & set("a+") and "w" not in mode and os.path.isfile(file) and not held.exists():
                held.write_bytes(Path(file).read_bytes())
            return held
        return held if held.is_file() else file

    def _changing(self, real):
        def change(path, *args, **kwargs):
            held = self.held(path)
            if held is None:
                return real(path, *args, **kwargs)
            if real.__name__ == "mkdir":
                return os.makedirs(held, exist_ok=True)
            if real.__name__ in ("rename", "replace"):
                args = (self.held(args[0]) or args[0], *args[1:])
                os.makedirs(os.path.dirname(args[0]), exist_ok=True)
            return real(held, *args, **kwargs) if held.exists() else None  # what was there before stays

        return change
