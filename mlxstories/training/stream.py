"""The microbatches of a training: epoch after epoch, each packed and shuffled anew, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from mlxstories.batch import Batch, batch_of
from mlxstories.data.packing import Arrangement, Documents
from mlxstories.data.windows import Windows
from mlxstories.errors import StoriesError

if TYPE_CHECKING:
    from mlxstories.training.config import TrainingConfig


class Stream:
    """Microbatches of static shape without end.

    An epoch is the stories in windows of at most about a million, one for most corpora. Each window is
    packed by itself; its last microbatch is filled up with empty rows, which the mask leaves out. What a
    microbatch holds follows from the seed, its epoch and its number alone.

    Args:
        documents: the training stories.
        context: cells of a row.
        config: batch size, layout and seed.
        rank, ranks: of ``ranks`` processes that share each microbatch, this one reads the ``rank``-th part
            of its rows: ``batch_size / ranks`` of them, the numbering of microbatches staying the same.

    Attributes:
        epoch, batch: position, the next microbatch.
        skipped: positions that are left out.

    Raises:
        StoriesError: the batch size is not a multiple of ``ranks``.
    """

    def __init__(
        self, documents: Documents, context: int, config: TrainingConfig, *, rank: int = 0, ranks: int = 1
    ):
        self._documents, self._context, self._config = documents, context, config
        self._rows = config.share(ranks)
        self._first = rank * self._rows
        self.skipped: set[tuple[int, int]] = set()
        self.seek(0, 0)

    @cached_property
    def length(self) -> int:
        """Microbatches of the first epoch, whose windows are all arranged to count them (about a second each);
        other epochs differ by a few where stories longer than a row are cut."""
        windows = self._epoch(0)
        return sum(self._batches(windows[index]) for index in range(len(windows)))

    def _epoch(self, epoch: int) -> Windows:
        layout, seed = self._config.layout, self._config.seed
        return Windows(self._documents, self._context, layout=layout, seed=seed, epoch=epoch)

    def _batches(self, window: Arrangement) -> int:
        return math.ceil(window.rows / self._config.batch_size)

    def seek(self, epoch: int, batch: int) -> None:
        """Continue with microbatch ``batch`` of ``epoch``."""
        self.epoch, self.batch = epoch, batch
        self._windows: Windows | None = None
        self._skip()

    def _skip(self) -> None:
        """On to the next position that is not left out."""
        while (self.epoch, self.batch) in self.skipped:
            self._turn()
            self._advance()

    def _advance(self) -> None:
        """One position further than that which `_turn` went to."""
        self.batch += 1
        if self.batch == self._end and self._index == len(self._windows) - 1:
            self.epoch, self.batch, self._windows = self.epoch + 1, 0, None

    def _turn(self) -> None:
        """To the window that holds the next microbatch."""
        if self._windows is None:
            self._windows, self._index, self._end = self._epoch(self.epoch), -1, 0
        while self.batch >= self._end:
            self._index += 1
            if self._index == len(self._windows):
                raise StoriesError(f"epoch {self.epoch} has {self._end} batches: there is no {self.batch}.")
            self._documents.release()
            self._window = self._windows[self._index]
            self._begin, self._end = self._end, self._end + self._batches(self._window)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        self._turn()
        start = (self.batch - self._begin) * self._config.batch_size + self._first
        batch = batch_of(self._window.fill(start, start + self._rows), 0, self._rows)
        self._advance()
        self._skip()
        return batch
