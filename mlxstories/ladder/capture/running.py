"""Running a script beside the ladder: in a greenlet, in a world of its own that is entered and left again."""

from __future__ import annotations

import atexit
import io
import logging
import os
import random
import runpy
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

import greenlet
import numpy as np

from mlxstories.errors import StoriesError
from mlxstories.findings.notebooks import builtins_of, pieces
from mlxstories.findings.place import spot
from mlxstories.ladder import directory
from mlxstories.ladder.capture.files import Overlay
from mlxstories.ladder.patches import Patches
from mlxstories.ladder.subject import describe_error
from mlxstories.ladder.time_limit import TimeLimitError
from mlxstories.ladder.where.places import Line, defined, frames, own_file

STOPPED = "was stopped"
MISUSED = 2  # the exit code of argparse and of click
_PAUSE = 0.01  # seconds, at most, that a script waits for nothing, as to cool down
_BEGUN = 8  # gradients of a cell that is not examined


class Stop(BaseException):
    """Raised inside the script when nobody needs it any more; no ``except Exception`` of its catches it."""


class NextCell(BaseException):
    """Raised inside a cell of a notebook that comes before the examined one, to leave its training."""


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
        new = {name: module for name, module in sys.modules.items() if name not in self._before}
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
        if theirs["environ"] != self._others["environ"]:
            os.environ.clear()
            os.environ.update(theirs["environ"])
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


class Script:
    """A script that runs until it waits in `ask`, and goes on when `answer` is called.

    Args:
        cell: of a notebook, the one whose training is wanted; those of earlier cells are begun and left.

    Attributes:
        ended: None while it runs, afterwards how it ended, in a few words.
        misused: whether it exited as a program does whose arguments are missing or wrong.
    """

    def __init__(
        self,
        target: str,
        argv: Sequence[str],
        log: TextIO,
        *,
        module: bool = False,
        settings=None,
        cell: int | None = None,
    ):
        self.target, self.module = target, module
        self._wanted, self._cell, self._passed = cell or 0, 0, 0
        self._compile = settings.compiled if settings else lambda source, path: compile(source, path, "exec")
        folder = os.getcwd() if module else str(Path(target).resolve().parent)
        self.world = World([target, *argv], folder, log)
        if settings:
            settings.install(self.world.patches)
        self.ended: str | None = None
        self.misused = False
        self.error: BaseException | None = None
        self._threads = set(threading.enumerate())
        self._main = greenlet.getcurrent()
        # A thread would not do: MLX's arrays belong to the streams of theirs.
        self._greenlet = greenlet.greenlet(self._run)

    def start(self) -> Any:
        """Run to the first question; returns it, or None where the script has ended."""
        return self._switch()

    def answer(self, reply: Any) -> Any:
        """Hand over what the script waits for; returns its next question, or None where it has ended."""
        return self._switch(reply)

    def before_the_wanted_cell(self) -> bool:
        """Called inside the script at a gradient: whether it is one of an earlier cell, which goes on for a few more.

        Raises:
            NextCell: it has gone on long enough.
        """
        if self._cell >= self._wanted:
            return False
        self._passed += 1
        if self._passed > _BEGUN:
            raise NextCell
        return True

    def ask(self, question: Any) -> Any:
        """Called inside the script: wait for an answer."""
        return self._main.switch(question)

    @property
    def running(self) -> bool:
        """Whether the code that runs now is the script's."""
        return greenlet.getcurrent() is self._greenlet

    def names(self) -> dict[str, Any]:
        """What the script has at its top level, while it waits."""
        around = frames(self._greenlet.gr_frame)
        return next((dict(f.f_globals) for f in around if f.f_globals.get("__name__") == "__main__"), {})

    def threads(self) -> list[Line]:
        """What the threads run that the script itself has started, and that go on."""
        found = set(threading.enumerate()) - self._threads
        lines = (defined(getattr(thread, "_target", None) or type(thread).run) for thread in found)
        return [line for line in lines if line is not None]

    def close(self) -> None:
        """End the script where it stands."""
        if self._greenlet and not self._greenlet.dead:
            with self.world:
                self._greenlet.throw(Stop)
        self.world.close()

    def _switch(self, *reply) -> Any:
        self._main = greenlet.getcurrent()
        with self.world:
            question = self._greenlet.switch(*reply)
        if isinstance(self.error, (TimeLimitError, KeyboardInterrupt)):
            raise self.error
        return question

    def _run(self) -> None:
        try:
            if self.module:
                runpy.run_module(self.target, run_name="__main__", alter_sys=True)
            else:
                self._run_file()
            self.ended = "ended"
        except Stop:
            self.ended = STOPPED
        except NeedsInput as error:
            self.ended = f"asks for input{_at(error)}: hand it over as arguments"
        except SystemExit as error:
            said = error.code if isinstance(error.code, str) else self.world.last_line() if error.code else ""
            self.ended = f"exited{_at(error)}: {said or f'SystemExit {error.code}'}"
            self.misused = error.code == MISUSED
        except TimeLimitError as error:
            self.error = TimeLimitError(f"{error}{_at(error)}")
            self.ended = str(self.error)
        except BaseException as error:
            self.error = error
            self.ended = f"raised {describe_error(error)}"

    def _run_file(self) -> None:
        try:
            found = list(pieces(self.target))
        except OSError as error:
            raise StoriesError(f"{self.target}: cannot be read: {error.strerror}") from error
        main, path = sys.modules["__main__"], Path(self.target)
        main.__dict__.update(__file__=str(path), __builtins__=__builtins__, **builtins_of(path))
        for number, source in found:
            self._cell, self._passed = number, 0
            with suppress(NextCell):
                exec(self._compile(source, str(path.resolve())), main.__dict__)


def _at(error: BaseException) -> str:
    """The innermost of the user's lines that an exception came through."""
    trace, own = error.__traceback__, ""
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        own = f" at {spot(name, trace.tb_lineno)}" if own_file(name) else own
        trace = trace.tb_next
    return own
