"""Signals that ask a training to stop: it finishes the step and saves a checkpoint."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

# SIGHUP says that the terminal was closed, or the ssh connection: what Ctrl-C on mlx.launch does to other computers
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# How MLX begins to say that its compiler failed, or left nothing behind.
_UNCOMPILED = ("[Compile::eval_cpu]", "Could not load C++ shared library")


@contextlib.contextmanager
def handled(number: int, handler: Callable | signal.Handlers) -> Iterator[None]:
    """A signal is handled so within the block; outside the main thread, where Python allows no handlers, as before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, previous)


@contextlib.contextmanager
def stop_signal() -> Iterator[threading.Event]:
    """An event that the signals of `STOPS` set, so that a step is finished before training stops.

    A second SIGINT or SIGTERM acts as usual. SIGHUP stays ignored where it was, as under nohup. Outside the main
    thread, where Python allows no handlers, the event stays unset.

    Raises:
        KeyboardInterrupt: after a signal, MLX could not finish the step.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous = {number: signal.getsignal(number) for number in STOPS}
    if previous[signal.SIGHUP] is signal.SIG_IGN:
        del previous[signal.SIGHUP]

    def stop(number, _frame):
        event.set()
        signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP else previous[number])

    for number in previous:
        signal.signal(number, stop)
    try:
        yield event
    except RuntimeError as error:
        # Ctrl-C and timeout send their signal to all of a command's processes, a compiler that MLX has started too
        if not event.is_set() or not str(error).startswith(_UNCOMPILED):
            raise
        raise KeyboardInterrupt from error
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
