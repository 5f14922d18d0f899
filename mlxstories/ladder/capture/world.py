"""What a script sees as its own while it runs beside the ladder: entered before it runs and left behind it."""

from __future__ import annotations

import atexit
import io
import logging
import os
import random
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

import numpy as np

from mlxstories.ladder import directory
from mlxstories.ladder.capture.files import Overlay
from mlxstories.ladder.patches import Patches
from mlxstories.ladder.where.places import own_file

_PAUSE = 0.01  # seconds, at most, that a script waits for nothing, as to cool down


class NeedsInput(BaseException):
    """The script waits for somebody to type."""


class _NoInput(io.TextIOBase):
    def readable(self):
        return True

    def readline(self, *_):
        raise NeedsInput

    read = readline


class World:
    """What a script sees as its own: arguments, paths, modules, folder, output, logging, warnings, random states.

    Inside ``with`` it is the script's, outside it is as the caller left it. Handlers that the script itself wants
    called on a signal or at the end of the process are left out: they would outlast it.
    """

    def __init__(self, argv: Sequence[str], folder: str, log: TextIO):
        self.patches = Patches()
        self.files = Overlay()
        self.files.install(self.patches)
        self.patches.replace(signal, "signal", _for_libraries(signal.signal, _signal_as_it_is))
        self.patches.replace(
            atexit, "register", _for_libraries(atexit.register, lambda function, *_, **__: function)
        )
        self.patches.replace(time, "sleep", _for_libraries(time.sleep, _brief(time.sleep)))
        self.log = log
        self._others = {
            "argv": list(argv),
            "path": [folder, *sys.path],
            "stdin": _NoInput(),
            "stdout": log,
            "stderr": log,
            "main": ModuleType("__main__"),
            "logging": (logging.WARNING, []),
            "warnings": (list(warnings.filters), warnings.showwarning),
            "cwd": directory.here(),
            "environ": dict(os.environ) | {"MPLBACKEND": "agg"},  # a window would wait to be closed
            "random": (random.getstate(), np.random.get_state()),
        }
        self._modules: dict[str, ModuleType] = {}
        self._bytecode = sys.dont_write_bytecode

    @property
    def sources(self) -> set[str]:
        """Of the modules that it has imported and that are no library's, while it waits."""
        return {file for module in self._modules.values() if (file := getattr(module, "__file__", None))}

    def __enter__(self) -> World:
        self._swap()
        self._before = set(sys.modules)
        sys.modules.update(self._modules)
        sys.dont_write_bytecode = True
        self.patches.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self.patches.__exit__(*error)
        sys.dont_write_bytecode = self._bytecode
        new = {name: sys.modules[name] for name in sys.modules.keys() - self._before}
        # Libraries stay: some of them cannot be imported twice.
        self._modules = {name: module for name, module in new.items() if not _library(module)}
        for name in self._modules:
            del sys.modules[name]
        self._swap()

    def _swap(self) -> None:
        theirs, self._others = (
            self._others,
            {
                **{name: getattr(sys, name) for name in ("argv", "path", "stdin", "stdout", "stderr")},
                "main": sys.modules["__main__"],
                "logging": (logging.root.level, logging.root.handlers),
                "warnings": (list(warnings.filters), warnings.showwarning),
                "cwd": directory.here(),
                "environ": dict(os.environ),
                "random": (random.getstate(), np.random.get_state()),
            },
        )
        for name in ("argv", "path", "stdin", "stdout", "stderr"):
            setattr(sys, name, theirs[name])
        sys.modules["__main__"] = theirs["main"]
        level, logging.root.handlers = theirs["logging"]
        logging.root.setLevel(level)
        _put_warnings(*theirs["warnings"], self._others["warnings"][0])
        directory.enter(theirs["cwd"])
        _put_environment(theirs["environ"], self._others["environ"])
        random.setstate(theirs["random"][0])
        np.random.set_state(theirs["random"][1])

    @property
    def written(self) -> int:
        """The bytes that it has printed so far."""
        self.log.flush()
        return os.fstat(self.log.fileno()).st_size

    def last_line(self) -> str:
        """The last line that the script printed."""
        self.log.flush()
        lines = Path(self.log.name).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1].strip()[:200] if lines else ""

    def close(self) -> None:
        self.log.flush()
        self.files.close()


def _put_environment(variables: dict[str, str], now: dict[str, str]) -> None:
    """Set what differs alone: a script is entered at each of its updates, and the variables are many."""
    for name in now.keys() - variables.keys():
        del os.environ[name]
    os.environ.update(variables.items() - now.items())


def _put_warnings(filters: list, show: Callable, now: list) -> None:
    warnings.showwarning = show
    if filters != now:  # what was told once is told again after a change
        warnings.resetwarnings()
        warnings.filters.extend(filters)


def _for_libraries(real: Callable, instead: Callable) -> Callable:
    """A function that is ``real`` where a library calls it, and ``instead`` where the user's code does."""

    def call(*args, **kwargs):
        return (instead if own_file(sys._getframe(1).f_code.co_filename) else real)(*args, **kwargs)

    return call


def _signal_as_it_is(signalnum: int, handler: Any) -> Any:
    return signal.getsignal(signalnum)


def _brief(real: Callable[[float], None]) -> Callable[[float], None]:
    return lambda seconds: real(min(seconds, _PAUSE))


def _library(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return file is None or not own_file(file)
