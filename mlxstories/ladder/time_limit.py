"""A limit on how long code that is not ours may run."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


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
