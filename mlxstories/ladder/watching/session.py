"""A training that runs, looked at now and then: never for more than one per cent of its time."""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.optimizers import Optimizer

from mlxstories.errors import StoriesError
from mlxstories.findings import Finding, Place
from mlxstories.ladder.bench.step.optimizers import read_rate
from mlxstories.ladder.capture.copies import host, leaves
from mlxstories.ladder.patches import Patches
from mlxstories.ladder.watching import hooks
from mlxstories.ladder.watching.figures import Figures, entries, squares
from mlxstories.ladder.watching.judge import Judge
from mlxstories.ladder.where.places import place, stack
from mlxstories.runs.trackers import Tracker
from mlxstories.storage.files import check_writable, write_json, writing

SHARE = 0.01  # of the training's time that the looks may take
_RANKS_EVERY = 100  # updates, the same on every rank


class Session:
    """The watch over one training.

    Attributes:
        findings: so far.
        updates: so far.
        looks: updates that were looked at closely.
        seconds: that the looks took.
        tracing: number of the function that is being compiled, in which nothing has a value; else 0.
        busy: what passes by the hooks is our own.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        optimizer: Optimizer | None = None,
        *,
        tell: Callable[[Finding], None],
        path: Path | None = None,
        trackers: Sequence[Tracker] = (),
        group: Any = None,
        floor: float | None = None,
    ):
        self.model, self.optimizer, self.group = model, optimizer, group
        self.tell, self.path, self.trackers = tell, path, trackers
        self.judge = Judge(floor)
        self.findings: list[Finding] = []
        self.updates = self.looks = 0
        self.seconds = 0.0
        self._begun = time.perf_counter()
        self.tracing = 0
        self.busy = False
        self._losses: list[tuple[int, mx.array]] = []
        self._batch: list[mx.array] = []  # ids of this update, and of the one before
        self._last: list[mx.array] = []
        self._pending: tuple[Figures, dict[str, Any]] | None = None
        self._thread = 0  # that made the last update
        self._line = None

    def validation(self, loss: float) -> None:
        """Take a validation loss of the loop's own: nats per token, per real token and without smoothing."""
        self._tell(self.judge.validation(self.updates, float(loss)))

    # --- what the hooks tell ----------------------------------------------------------------------

    def gradient(self, model: nn.Module | None, arguments: Any, loss: Any) -> None:
        """A gradient was taken of this loss, with these arguments."""
        if self.tracing or self.busy:
            return
        self.model = self.model if self.model is not None else model
        if model is not None and model is not self.model:
            return
        self._batch = _ids(arguments)
        if isinstance(loss, mx.array) and loss.size == 1:
            self._losses.append((self.updates + 1, loss))

    def update(self, optimizer: Optimizer, gradients: Any) -> None:
        """An update is about to be made."""
        if self.tracing or self.busy or self.model is None:
            return
        self.optimizer = self.optimizer if self.optimizer is not None else optimizer
        if optimizer is not self.optimizer:
            return
        self.look()
        self._next(gradients)

    def compiled(self, arguments: Any, result: Any) -> None:
        """A compiled step with an update in it was called."""
        self.look()
        self._batch = _ids(arguments)
        outcome = [a for _, a in leaves([result]) if a.size == 1]
        if outcome:
            self._losses.append((self.updates + 1, outcome[0]))
        self._next(None)

    def _next(self, gradients: Any) -> None:
        """Count an update, and begin a look at it if there is time for one."""
        # A loss that nobody evaluates holds the logits of its batch: the last update's need not wait for the next look.
        mx.async_eval([loss for step, loss in self._losses if step == self.updates])
        self.updates += 1
        self._thread = threading.get_ident()
        start = time.perf_counter()
        if self.seconds <= SHARE * (start - self._begun) and self.model is not None:
            self.busy = True
            figures = Figures(self.updates, rate=read_rate(self.optimizer) if self.optimizer else None)
            lazy: dict[str, Any] = {
                "norms": squares(gradients) if gradients else {},
                "weights": entries(self.model),
            }
            lazy["batch"], lazy["last"] = self._batch, self._last
            self._pending = figures, lazy
            if self._line is None:
                self._line = next(iter(stack(sys._getframe(2))[-1:]), None)
            self.busy = False
            self.seconds += time.perf_counter() - start
        self._last = self._batch
        if self.updates % _RANKS_EVERY == 0:
            self._ranks()

    def look(self) -> None:
        """Finish the look that was begun, now that the update has been made."""
        # MLX's arrays belong to the streams of their thread: a loader's own cannot evaluate them.
        if self._pending is None or self.busy or self._thread != threading.get_ident():
            return
        start = time.perf_counter()
        (figures, lazy), self._pending, self.busy = self._pending, None, True
        losses, self._losses = self._losses, []
        try:
            mx.eval(
                lazy["norms"], lazy["weights"] if lazy["weights"] is not None else [], [a for _, a in losses]
            )
            figures.norms = {name: float(mx.sqrt(total)) for name, total in lazy["norms"].items()}
            figures.weights = None if lazy["weights"] is None else np.array(lazy["weights"])
            figures.ids = host(lazy["batch"][0]) if lazy["batch"] else None
            figures.loss = float(losses[-1][1]) if losses else None
            same = bool(lazy["batch"]) and _equal(lazy["batch"], lazy["last"])
            found = self.judge.hear(figures, same)  # first, for it names the block
            self._tell([*found, *self.judge.losses_between([(step, float(loss)) for step, loss in losses])])
            self.looks += 1
        finally:
            self.busy = False
            self.seconds += time.perf_counter() - start

    def _ranks(self) -> None:
        if self.group is None or self.group.size() == 1:
            return
        own = entries(self.model)
        together = mx.distributed.all_gather(own[None], group=self.group)
        size = float(mx.abs(together).mean()) or 1.0
        self._tell(self.judge.ranks(self.updates, float(mx.abs(together - together[:1]).max()) / size))

    # --- telling ----------------------------------------------------------------------------------

    def _tell(self, found: list[Finding]) -> None:
        for finding in found:
            if (here := place(self._line)) is not None:
                named = {"module": finding.where} if isinstance(finding.where, str) else {}
                finding = dataclasses.replace(finding, where=Place({**here, **named}))
            self.findings.append(finding)
            self.tell(finding)
            for tracker in self.trackers:
                tracker.write(self.updates, {f"findings/{finding.code}": 1.0})
        if found and self.path is not None and self._first_rank:
            self._write(self.path)

    def _write(self, path: Path) -> None:
        """A disk that has filled up since must not end the training."""
        try:
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, [dataclasses.asdict(finding) for finding in self.findings])
        except StoriesError as error:
            print(f"findings are not kept: {error}", file=sys.stderr)
            self.path = None

    @property
    def _first_rank(self) -> bool:
        return self.group is None or self.group.rank() == 0


def _ids(arguments: Any) -> list[Any]:
    """Tables of whole numbers among the arguments: token ids."""
    return [a for _, a in leaves(arguments) if mx.issubdtype(_dtype(a), mx.integer) and a.ndim == 2]


def _dtype(array: Any) -> mx.Dtype:
    return array.dtype if isinstance(array, mx.array) else mx.array(array[:0]).dtype


def _equal(one: list, two: list) -> bool:
    pairs = list(zip(one, two, strict=False))
    return len(one) == len(two) and all(a.shape == b.shape and (host(a) == host(b)).all() for a, b in pairs)


@contextmanager
def watch(
    model: nn.Module | None = None,
    optimizer: Optimizer | None = None,
    *,
    floor: float | None = None,
    path: str | Path | None = "findings.json",
    trackers: Sequence[Tracker] = (),
    tell: Callable[[Finding], None] | None = None,
) -> Iterator[Session]:
    """Keep the cheap checks on while a training loop runs.

        with watch(model, optimizer) as session:
            for batch in batches:
                ...
            session.validation(val_loss)

    Looked for are losses and gradients that are not finite, explode or jump, updates that stop, learning rates that
    cannot be meant, batches that repeat, and ranks whose weights drift apart. The looks take one per cent of the time:
    where steps are small not every update is looked at, though every loss is. Inside a compiled step that
    was compiled under the watch, losses, weights and batches are seen, and gradients are not.

    Args:
        model, optimizer: what is trained; by default, what the first gradient and update are of.
        floor: entropy of the text in nats per token, where it is known: a validation loss that is handed to
            ``session.validation`` and lies below it is told. Which losses outside of gradients are of held-out text
            cannot be seen from outside, and text that was trained on may well cost less.
        path: where findings are written as JSON, when there are any; None for nowhere.
        trackers: that are told of findings, as ``findings/CODE``.
        tell: called with each finding; by default it is printed to standard error.

    Raises:
        StoriesError: ``path`` cannot be written.
    """
    path = Path(path).resolve() if path is not None else None
    group = mx.distributed.init() if mx.distributed.is_available() else None
    session = Session(
        model,
        optimizer,
        tell=tell or printed,
        path=path,
        trackers=trackers,
        group=group,
        floor=floor,
    )
    if path is not None and session._first_rank:
        check_writable(path)
    patches = Patches()
    hooks.install(patches, session)
    with patches:
        try:
            yield session
        finally:
            session.look()


def printed(finding: Finding) -> None:
    """A finding as two lines on standard error."""
    where = f" at {finding.where}" if finding.where else ""
    print(
        f"{finding.severity}: {finding.code}{where}\n  {finding.message}\n  Fix: {finding.fix}",
        file=sys.stderr,
    )
