"""A function in a process of its own that is forked, so that nothing is imported twice and nothing is left behind."""

from __future__ import annotations

import os
import pickle
import resource
import select
import signal
import time
import traceback
from collections.abc import Callable
from typing import Any

_CPU = 60  # seconds of one call: a mistake may go on for ever
_WALL = 900  # seconds, whatever the machine's load


def forked(function: Callable, *args, most: int = _CPU) -> tuple[Any, float]:
    """What the function returns, and the CPU seconds that it took; a str instead where it ended otherwise.

    Args:
        most: CPU seconds after which it is ended.

    MLX must not have computed anything yet in this process: its threads would be missing in the other one.
    """
    reads, writes = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reads)
        _answer(writes, function, args, most)
    os.close(writes)
    told = _all_of(reads, time.monotonic() + _WALL)
    if told is None:
        os.kill(process, signal.SIGKILL)
    os.close(reads)
    _, status, used = os.wait4(process, 0)
    result = pickle.loads(told) if told else f"ended by {_ending(status)}"
    return result, used.ru_utime + used.ru_stime


def ended_with(text: str) -> str:
    """The last line of what is told of a call that did not return."""
    return (text.strip().splitlines() or [""])[-1][:300]


def _answer(writes: int, function: Callable, args: tuple, most: int) -> None:
    """In the new process: run, write the result, and end at once, whatever threads there are."""
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (most, most + 5))
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        try:
            result = function(*args)
        except BaseException:
            result = traceback.format_exc()
        with os.fdopen(writes, "wb") as file:
            file.write(pickle.dumps(result))
    finally:
        os._exit(0)


def _all_of(reads: int, until: float) -> bytes | None:
    parts = []
    while select.select([reads], [], [], max(0.0, until - time.monotonic()))[0]:
        part = os.read(reads, 1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)
    return None


def _ending(status: int) -> str:
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "no answer"
