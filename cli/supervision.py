"""A separate process for code that is not ours: that may end the process, hang in C, or leave processes behind."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import fcntl
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from mlxstories.storage.files import scratch

GRACE = 5.0  # seconds after the limit in which Python code, which the limit reaches, ends by itself
_SLOW = 0.1  # of the limit, for one call in C that a busy machine is slow with
LAST_WORDS = 2.0  # seconds for a process to end after it has said its exit code, or after Ctrl-C
_PDEATHSIG, _CHILD_SUBREAPER = 1, 36  # prctl(2)
_MAIN = (
    "import sys; sys.path[:] = {path!r}; from mlxstories.cli.supervision import child; "
    "child({pipe}, {lines}, {found})"
)
_FRAME = re.compile(r'File "(.+)", line (\d+) in ')  # as faulthandler writes it, the innermost first

_told: tuple[int, int] | None = None  # in the child: the pipe to the parent, and its own process id


def wanted() -> bool:
    """Whether this process may hand the command on: not if it is the child, or if its output is caught in Python."""
    return _told is None and sys.stdout is sys.__stdout__


def child(pipe: int, lines: int, found: int) -> None:
    """Run the command line ``sys.argv[1:]``; the parent is told the exit code, or what our code could not stand.

    Where a signal ends this process, the file ``lines`` tells at which lines, and ``found`` what a climb had found.
    """
    global _told
    from mlxstories.cli import main, so_far
    from mlxstories.ladder.subject import describe_error

    _told = pipe, os.getpid()
    _prctl(_PDEATHSIG, signal.SIGKILL)
    faulthandler.enable(lines)
    so_far.keep_in(found)
    try:
        main(sys.argv[1:], prog_name="mlxstories")
    except SystemExit as end:
        code = 0 if end.code is None else end.code if isinstance(end.code, int) else 1
        with contextlib.suppress(Exception):  # closed by what was examined, or a full disk
            sys.stdout.flush()
            sys.stderr.flush()
        _tell(f"={code}\n")
        raise
    except BaseException as error:
        _tell(f"!raised {describe_error(error)} in the ladder itself\n")


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """``time_limit``, which the parent enforces where Python's signal does not reach."""
    from mlxstories.ladder.time_limit import time_limit

    _tell("(")
    try:
        with time_limit(seconds):
            yield
    finally:
        _tell(")")


def _tell(news: str) -> None:
    if _told is None:
        return
    pipe, process = _told
    if os.getpid() != process:  # a fork of what is examined, which came back out of it
        os._exit(0)
    with contextlib.suppress(OSError):  # closed by what is examined
        os.write(pipe, news.encode(errors="replace"))


def run(words: list[str], timeout: float, found: IO[bytes], *, patient: bool = False) -> int | str:
    """Run ``mlxstories *words`` in a child; its exit code, or how it ended if it did not come to one. What a climb has
    found until then stands in ``found``, to be read by `so_far.kept`.

    ``timeout`` counts, in seconds, within each block that the child runs under ``limited``. Processes that it leaves
    behind are ended too (on Linux). Where it is ``patient``, a signal that asks the child to end leaves it its time.
    """
    _prctl(_CHILD_SUBREAPER, 1)  # what its children leave behind becomes our child, so that it can be found
    reading, low = os.pipe()
    pipe = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 10)  # not one of 0 to 2, where they are closed
    os.close(low)
    lines = tempfile.TemporaryFile()  # noqa: SIM115  (closed below)
    path = [str(Path(place).absolute()) for place in sys.path]
    code = _MAIN.format(path=path, pipe=pipe, lines=lines.fileno(), found=found.fileno())
    passed = [pipe, lines.fileno(), found.fileno()]
    process = subprocess.Popen([sys.executable, "-c", code, *words], pass_fds=passed)
    os.close(pipe)
    try:
        return _Parent(process, reading, lines, timeout, patient).outcome()
    finally:
        lines.close()
        process.kill()
        process.wait()
        _end_orphans()
        os.close(reading)
        for folder in Path(tempfile.gettempdir()).glob(f"{scratch(process.pid)}*"):  # of a script that fell
            shutil.rmtree(folder, ignore_errors=True)


class _Parent:
    """Listens to a child until it has ended or its time is up."""

    def __init__(self, process: subprocess.Popen, pipe: int, lines: IO[bytes], timeout: float, patient: bool):
        self.process, self.pipe, self.lines = process, pipe, lines
        self.timeout, self.patient = timeout, patient
        self.heard = ""
        self.deadline = float("inf")
        self.interrupted = 0

    def outcome(self) -> int | str:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._interrupt)
        while self._listen():
            if time.monotonic() > self.deadline:
                return 128 + self.interrupted if self.interrupted else self._too_late()
        with contextlib.suppress(subprocess.TimeoutExpired):  # a thread, or code to run at exit, may hold it
            self.process.wait(LAST_WORDS)
        last = self.heard.rstrip("\n").lstrip("()")
        if last.startswith("="):
            return int(last[1:])
        if self.interrupted:
            return 128 + self.interrupted
        return last[1:] if last.startswith("!") else self._fell()

    def _interrupt(self, number, _frame) -> None:
        """A terminal sends Ctrl-C to the child as well; other signals come here alone."""
        self.interrupted = number
        if not self.patient:
            self.deadline = min(self.deadline, time.monotonic() + LAST_WORDS)
        if number != signal.SIGINT:
            self.process.send_signal(number)

    def _listen(self) -> bool:
        """Whether there may be more to hear; 5 times a second, since a fork can hold the pipe open."""
        ended = self.process.poll() is not None
        if select.select([self.pipe], [], [], 0 if ended else 0.2)[0]:
            news = os.read(self.pipe, 4096).decode(errors="replace")
            self.heard += news
            if news[-1:] in "()":
                limit = (
                    time.monotonic() + (1 + _SLOW) * self.timeout + GRACE
                    if news[-1:] == "("
                    else float("inf")
                )
                self.deadline = self.deadline if self.interrupted and not self.patient else limit
            return bool(news) and not news.endswith("\n")
        return not ended

    def _too_late(self) -> str:
        return f"was not finished after {self.timeout:g} s, and ignored the time limit"

    def _fell(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(LAST_WORDS)
        code = self.process.returncode
        if code is None:
            return "closed the pipe to the ladder and did not end"
        if code < 0:
            return f"ended the process by {signal.Signals(-code).name}{_line_in(self.lines)}"
        return f"ended the process with exit code {code}, past Python (os._exit or exec)"


def _line_in(lines: IO[bytes]) -> str:
    """The innermost of the user's lines among those that a process was at when it was ended."""
    from mlxstories.findings.place import spot
    from mlxstories.ladder.where.places import own_file

    lines.seek(0)
    for file, line in _FRAME.findall(lines.read().decode(errors="replace")):
        if own_file(file):
            return f" at {spot(file, int(line))}"
    return ""


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _end_orphans() -> None:
    """End all children of this process, which has started none but the one that is over."""
    mine = Path(f"/proc/self/task/{os.getpid()}/children")
    with contextlib.suppress(OSError):
        while left := mine.read_text().split():
            for orphan in map(int, left):
                os.kill(orphan, signal.SIGKILL)
                os.waitpid(orphan, 0)
