"""Running a script beside the ladder, in a greenlet and in a world of its own."""

from __future__ import annotations

import os
import runpy
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import greenlet

from mlxstories.errors import StoriesError
from mlxstories.findings.notebooks import builtins_of, pieces
from mlxstories.findings.place import spot
from mlxstories.ladder.capture.world import NeedsInput, World
from mlxstories.ladder.subject import describe_error
from mlxstories.ladder.time_limit import TimeLimitError
from mlxstories.ladder.where.places import Line, defined, frames, own_file

STOPPED = "was stopped"
MISUSED = 2  # the exit code of argparse and of click
_BEGUN = 8  # gradients of a cell that is not examined


class Stop(BaseException):
    """Raised inside the script when nobody needs it any more; no ``except Exception`` of its catches it."""


class NextCell(BaseException):
    """Raised inside a cell of a notebook that comes before the examined one, to leave its training."""


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
