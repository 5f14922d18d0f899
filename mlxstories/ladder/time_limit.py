"""A limit on how long code that is not ours may run."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_WAITED = 3  # times as long by the clock: a GPU works, and data from afar come, without CPU time


class Deadline:
    """Passes when that many seconds of CPU time are spent, so that a busy machine does not bring it nearer.

    It comes no sooner than after as many seconds by the clock, and at the latest after three times as many.
    """

    def __init__(self, seconds: float):
        self.seconds, self._began, self._worked = seconds, time.monotonic(), time.process_time()

    @property
    def passed(self) -> bool:
        waited, worked = time.monotonic() - self._began, time.process_time() - self._worked
        return waited >= _WAITED * self.seconds or min(waited, worked) >= self.seconds


class TimeLimitError(Exception):
    """Raised inside whatever runs when the time is up."""


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Interrupt the block after ``seconds``; without limit where signals do not reach (Windows, other threads)."""
    usable = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if seconds is None or not usable:
        yield
        return

    def stop(_signal, _frame):
        raise TimeLimitError(f"not finished after {seconds:g} s")

    previous = signal.signal(signal.SIGALRM, stop)
    # Again every second, for code that swallows exceptions.
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
