"""An end to waiting for processes that are gone.

A collective of MLX waits inside the library, where no signal handler of Python runs. What happens when a peer is
gone depends on the backend: the ring raises within milliseconds once the peer's socket is closed, unless MLX has so
many operations queued behind the sum that it waits for one of them to end before it takes more (found in 0.32.4); it
waits for ever on a computer that vanished or a process that is stopped, and JACCL waits for ever on both. So a
thread watches.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator

from mlxstories.training.stopping import STOPS

GRACE = 5.0  # seconds, at the least, for a step that was under way when a signal to stop came


class Watchdog:
    """Ends this process with exit code 1 when a wait for the others outlasts its patience.

    A signal to stop shortens the patience to `GRACE`, or five times the longest wait so far, and a second one ends the
    wait at once: the launcher sends SIGTERM to the processes left when one has ended.

    Args:
        patience: seconds.
    """

    def __init__(self, patience: float):
        self._patience = patience
        self._since: float | None = None  # the wait under way began
        self._extra = 0.0  # seconds that it may last beyond the patience
        self._longest = 0.0  # what was allowed on top left out

    @contextlib.contextmanager
    def waiting(self, extra: float = 0.0) -> Iterator[None]:
        """Around every wait for the others, which may last ``extra`` seconds more."""
        self._since, self._extra = time.monotonic(), extra
        try:
            yield
        finally:
            self._longest = max(self._longest, time.monotonic() - self._since - extra)
            self._since = None

    @contextlib.contextmanager
    def running(self, say: Callable[[str], None]) -> Iterator[None]:
        """Watch while the block runs; ``say`` receives the reason just before the process ends.

        Signals are seen where the block runs in the main thread, as Python has it.
        """
        signals, wakeup = os.pipe()
        os.set_blocking(wakeup, False)
        main = threading.current_thread() is threading.main_thread()
        previous = signal.set_wakeup_fd(wakeup) if main else -1
        done = threading.Event()
        thread = threading.Thread(target=self._watch, args=(signals, done, say), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            if main:
                signal.set_wakeup_fd(previous)
            os.close(wakeup)  # the thread reads the end of the pipe
            thread.join()
            os.close(signals)

    def _watch(self, signals: int, done: threading.Event, say: Callable[[str], None]) -> None:
        told: list[float] = []
        while not done.is_set():
            if select.select([signals], [], [], 0.5)[0]:
                stops = [n for n in os.read(signals, 16) if n in STOPS]
                told += [time.monotonic()] * len(stops)
            reason = self._reason(told)
            if reason is not None and not done.is_set():
                try:
                    say(reason)
                finally:
                    os._exit(1)

    def _reason(self, told: list[float]) -> str | None:
        """Why the wait under way must end, if it must; ``told`` are the times of the signals to stop."""
        since, now = self._since, time.monotonic()
        grace = max(GRACE, 5 * self._longest)
        if since is None:
            return None
        if now - since > self._patience + self._extra:
            return f"the other processes were silent for {self._patience + self._extra:g} seconds."
        if len(told) > 1:
            return "it was told to stop while it waited for the other processes."
        if told and now - max(since, told[0]) > grace:
            return f"the other processes were silent for {grace:.0f} seconds after the signal to stop."
        return None
