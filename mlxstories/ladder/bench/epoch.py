"""The subject's batches, read on the host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mlxstories.ladder.bench.batches import Convention, HostBatch, UnusableBatch, read_batch
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.time_limit import Deadline

_MAX_BATCHES = 400  # of an epoch that are read
_MAX_CELLS = 400_000  # tokens of an epoch that are read
_SECONDS = 10.0  # of CPU time on an epoch


@dataclass
class Epoch:
    """The batches of one epoch that were read, and whether that was all of them."""

    batches: list[HostBatch]
    complete: bool

    @cached_property
    def cells(self) -> int:
        return sum(int((batch.mask > 0).sum()) for batch in self.batches)

    def by(self, convention: Convention) -> Epoch:
        """The epoch with its batches read by a convention."""
        return Epoch([batch.by(convention) for batch in self.batches], self.complete)

    @property
    def padded(self) -> bool:
        """Whether any cell is masked, apart from the last of each row where the loss shifts the targets."""
        return any(
            (batch.mask[:, : -1 if batch.convention.shifted else None] == 0).any() for batch in self.batches
        )


def read(bench: Bench, what: str, batches: Callable[[], Any]) -> Epoch:
    """Read an epoch on the host, bounded in batches and tokens."""
    found: list[HostBatch] = []
    cells, complete = 0, True
    deadline = Deadline(_SECONDS)
    with bench.calling(what):
        for index, item in enumerate(batches()):
            try:
                found.append(read_batch(item))
            except UnusableBatch as error:
                raise bench.fault(
                    f"batch {index} of {what} {error}",
                    "yield Batch(inputs, targets, mask), each of shape [B, T]",
                    f"{what}, batch {index}",
                ) from error
            cells += found[-1].inputs.size
            if len(found) >= _MAX_BATCHES or cells >= _MAX_CELLS or deadline.passed:
                complete = False
                break
    return Epoch(found, complete)


@measurement
def raw_epoch(bench: Bench) -> Epoch:
    """The first epoch of training, before it is known what the loss leaves out.

    Raises:
        SubjectFault: there is nothing in it to train on.
    """
    bench.seed_all(bench.seed)
    epoch = read(bench, f"train_batches({bench.seed})", lambda: bench.subject.train_batches(bench.seed))
    if not epoch.batches:
        raise bench.fault("train_batches(seed) yields no batch", "yield at least one batch an epoch")
    if not epoch.cells:
        raise bench.fault("every training mask is 0 throughout", "set the mask to 1 on real tokens")
    return epoch
