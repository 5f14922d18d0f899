"""The processes that train one model together, and what they say to each other.

`Group` itself is one process alone: every method answers at once, without communication. `Processes` has the same
methods over ``mx.distributed``. Callers never ask which of the two they have.

All communication is ``all_sum``, the one collective that every backend of MLX implements, and every process makes
the same calls in the same order.
"""

from __future__ import annotations

import contextlib
import json
import platform
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, cast

import mlx.core as mx
import numpy as np

from mlxstories.distributed.buckets import in_buckets
from mlxstories.distributed.patience import Watchdog
from mlxstories.errors import StoriesError
from mlxstories.training.stopping import handled

T = TypeVar("T")

START = 3600.0  # more seconds of patience while another process may still fetch its stories
HEAD_START = 2.0  # seconds for rank 0 to say what is wrong: a launcher stops all when the first has ended
NAMED = 4  # of many differences


class Lost(Exception):
    """Another process ended or fell silent; the message says how it was noticed."""


class Group:
    """One process alone.

    Attributes:
        rank: number of this process, from 0; rank 0 alone writes and displays.
        size: how many processes there are.
    """

    rank = 0
    size = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def seed(self, seed: int) -> int:
        """A seed below 2**63 made this process's own; rank 0 keeps it as it is."""
        return seed + (self.rank << 56)

    def sum(self, tree: T) -> T:
        """A tree of arrays, each summed over the processes; not evaluated."""
        return tree

    def total(self, values: np.ndarray) -> np.ndarray:
        """float64 values, each summed over the processes: exactly, and to the same bits on every one."""
        return values

    def agree(self, flag: bool, *, now: bool = False) -> bool:
        """Whether any process gave True, in the call before this one, or in this one with ``now``.

        The answer of the call before is there already, so the device need not wait for the host.
        """
        return flag

    def first(self, make: Callable[[], bytes]) -> bytes:
        """What ``make`` returns on rank 0, where alone it is called.

        Raises:
            StoriesError: raised by ``make``; on the other ranks SystemExit, so that the error is shown once.
        """
        return make()

    def together(self, make: Callable[[], T]) -> T:
        """What ``make`` returns here, once it has succeeded on every process. It must not communicate.

        Raises:
            StoriesError: ``make`` raised it on some process; on the other ranks SystemExit.
        """
        return make()

    def adopt(self, tree: T) -> T:
        """The arrays of rank 0 in place of this process's, bit for bit; shapes and types must be the same."""
        return tree

    def require_equal(self, facts: Mapping[str, Any]) -> None:
        """
        Raises:
            StoriesError: ``facts``, which JSON can hold, are others on another process; the message names the
                fields and the process. SystemExit as for `first`.
        """

    def waiting(self) -> contextlib.AbstractContextManager[None]:
        """Around what may wait for the others; the methods of the group do so themselves."""
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def supervised(self, say: Callable[[str], None]) -> Iterator[None]:
        """While the block runs, the loss of another process ends this one, with `Lost` or, where MLX waits
        for ever or a launcher sends SIGTERM outside of training, with exit code 1. Before that, ``say`` receives
        the reason, perhaps in another thread."""
        yield


ALONE = Group()


class Processes(Group):
    """Several processes over ``mx.distributed``; see `join`.

    Args:
        group: of MLX.
        patience: seconds to wait for the others before they are given up.
    """

    def __init__(self, group: mx.distributed.Group, patience: float):
        self._group = group
        self._watchdog = Watchdog(patience)
        self._vote: mx.array | None = None
        self._said = False  # why this process ends, here or on rank 0
        self.rank, self.size = group.rank(), group.size()

    def sum(self, tree: T) -> T:
        return in_buckets(tree, lambda bucket: mx.distributed.all_sum(bucket, group=self._group))

    def total(self, values: np.ndarray) -> np.ndarray:
        bits = np.ascontiguousarray(values, dtype=np.float64).reshape(-1).view(np.uint32)
        return self._gather(bits).view(np.float64).sum(axis=0).reshape(np.shape(values))

    def agree(self, flag: bool, *, now: bool = False) -> bool:
        before = self._vote
        self._vote = mx.distributed.all_sum(mx.array([int(flag)]), group=self._group)
        mx.async_eval(self._vote)
        answer = self._vote if now else before
        with self._watchdog.waiting():
            return answer is not None and bool(answer.item())

    def first(self, make: Callable[[], bytes]) -> bytes:
        return self._exchange(self.together(make if self.leads else bytes))[0]

    def together(self, make: Callable[[], T]) -> T:
        result, error = None, b""
        try:
            result = make()
        except StoriesError as raised:
            where = "" if self.leads else f"{self._name}: "
            error = f"{where}{raised}".encode()
        for found in self._exchange(error):
            if found:
                raise self._once(found.decode())
        return cast("T", result)

    def adopt(self, tree: T) -> T:
        def of_rank_0(bucket: mx.array) -> mx.array:
            bits = bucket.view(mx.uint8)
            return mx.distributed.all_sum(
                bits if self.leads else mx.zeros_like(bits), group=self._group
            ).view(bucket.dtype)

        adopted = in_buckets(tree, of_rank_0)
        with self._watchdog.waiting():
            mx.eval(adopted)
        return adopted

    def require_equal(self, facts: Mapping[str, Any]) -> None:
        (_, first), *others = map(json.loads, self._exchange(json.dumps([self._name, facts]).encode()))
        for name, found in others:
            differences = list(_differences(found, first))
            if differences:
                named = ", ".join(differences[:NAMED])
                more = f" and {len(differences) - NAMED} more" if len(differences) > NAMED else ""
                raise self._once(
                    f"{name}, differs from rank 0 in {named}{more}: "
                    "start all with the same options, files and versions."
                )

    def waiting(self) -> contextlib.AbstractContextManager[None]:
        return self._watchdog.waiting()

    @contextlib.contextmanager
    def supervised(self, say: Callable[[str], None]) -> Iterator[None]:
        def say_once(reason: str) -> None:
            if not self._said:
                self._said = True
                say(f"{self._name}: {reason}")

        def end(*_) -> None:
            if not self._said:
                say_once("it was told to stop, as when another process has ended.")
                raise SystemExit(1)

        with self._watchdog.running(say_once), handled(signal.SIGTERM, end):
            try:
                yield
            except RuntimeError as error:
                if not str(error).startswith(("[ring]", "[jaccl]", "[nccl]", "[mpi]")):
                    raise
                reason = f"the connection to another process was lost ({error})."
                say_once(reason)
                raise Lost(reason) from error

    @property
    def _name(self) -> str:
        return f"rank {self.rank} of {self.size}, on {platform.node()}"

    def _add(self, words: np.ndarray, extra: float = 0.0) -> np.ndarray:
        """The sum over the processes of a uint32 array."""
        total = mx.distributed.all_sum(mx.array(words), group=self._group) if words.size else mx.array(words)
        with self._watchdog.waiting(extra):
            return np.array(total)

    def _gather(self, words: np.ndarray, extra: float = 0.0) -> np.ndarray:
        """The uint32 [n] of every process, uint32 [size, n]."""
        table = np.zeros((self.size, len(words)), dtype=np.uint32)
        table[self.rank] = words
        return self._add(table, extra)

    def _exchange(self, content: bytes) -> list[bytes]:
        """What every process gave, by rank; lengths may differ. Made for the time before training."""
        lengths = self._gather(np.array([len(content)], dtype=np.uint32), START)[:, 0]
        padded = content.ljust((int(lengths.max()) + 3) // 4 * 4, b"\0")
        table = self._gather(np.frombuffer(padded, dtype=np.uint32))
        return [row.tobytes()[:length] for row, length in zip(table, lengths, strict=True)]

    def _once(self, message: str) -> BaseException:
        """An error that rank 0 shows; the others end quietly with the same exit code, a little later."""
        self._said = True
        if self.leads:
            return StoriesError(message)
        time.sleep(HEAD_START)
        return SystemExit(2)


def _differences(found: Any, first: Any, path: str = "") -> Iterator[str]:
    """The fields of two JSON values that are not the same, as in "training.seed (1, not 0)"."""
    if isinstance(found, dict) and isinstance(first, dict):
        for name in first | found:
            yield from _differences(found.get(name), first.get(name), f"{path}.{name}" if path else name)
    elif found != first:
        yield f"{path} ({_shown(found)}, not {_shown(first)})"


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
