"""Trainings one after another or in worker processes, which an interruption ends with all progress saved."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from mlxstories.backend import kernels
from mlxstories.comparison import cells
from mlxstories.comparison.cells import Cell
from mlxstories.errors import StoriesError
from mlxstories.training.stopping import handled, stop_signal

_PATIENCE = 0.5  # seconds between two looks for a signal
_stopped = None  # in a worker: an event, set once the comparison is interrupted


def run_all(wanted: Sequence[Cell], store: Path, jobs: int) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Every cell with its result, in the order in which they are ready.

    Raises:
        StoriesError: a worker was killed; what is finished is kept.
        KeyboardInterrupt: passed on, once every training under way has saved itself.
    """
    if jobs == 1:
        yield from ((cell, cells.run(cell, store)) for cell in wanted)
        return
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # for the processes to come
    same: dict[str, list[Cell]] = {}  # two arms may be the same training
    for cell in wanted:
        same.setdefault(cell.key(), []).append(cell)
    context = multiprocessing.get_context("spawn")
    stopped = context.Event()
    with (
        # no KeyboardInterrupt may fall between the pool's locks: it would wait for them forever
        stop_signal() as asked,
        ProcessPoolExecutor(jobs, context, initializer=_begin, initargs=(stopped, jobs)) as pool,
    ):
        with handled(signal.SIGINT, signal.SIG_IGN):  # which the workers, started here, inherit
            futures = {pool.submit(_work, alike[0], store): alike for alike in same.values()}
        waiting = set(futures)
        try:
            while waiting:
                ready, waiting = wait(waiting, timeout=_PATIENCE, return_when=FIRST_COMPLETED)
                for future in ready:
                    yield from ((cell, future.result()) for cell in futures[future])
                if asked.is_set():
                    _end(stopped)
            if asked.is_set():
                raise KeyboardInterrupt
        except BrokenProcessPool:
            raise StoriesError(
                "a training process was killed, as happens when memory runs out: "
                "the same command continues; give it fewer --jobs"
            ) from None
        finally:
            _end(stopped)


def _end(stopped) -> None:
    """Asks the workers to end: those under way after their step, idle ones and trainings to come at once."""
    stopped.set()
    for worker in multiprocessing.active_children():
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGINT)


def _begin(stopped, jobs: int) -> None:
    global _stopped
    _stopped = stopped
    kernels.share_cores(jobs)


def _work(cell: Cell, store: Path) -> dict[str, Any]:
    if _stopped.is_set():
        raise KeyboardInterrupt
    return cells.run(cell, store)
