"""The script's own training loop, paused at each of its gradients until the ladder says what to do with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.optimizers import Optimizer

from mlxstories.errors import StoriesError, own_arguments
from mlxstories.ladder.bench.step.optimizers import parts
from mlxstories.ladder.capture import hooks
from mlxstories.ladder.capture.copies import clone
from mlxstories.ladder.capture.hooks import GradientCall
from mlxstories.ladder.capture.log import new_log
from mlxstories.ladder.capture.optimizers import share
from mlxstories.ladder.capture.running import Script
from mlxstories.ladder.capture.settings import Settings
from mlxstories.ladder.capture.watcher import Watcher
from mlxstories.ladder.own_training import subject_of_trainer
from mlxstories.ladder.random_states import put_random_key, random_key
from mlxstories.ladder.subject import Subject
from mlxstories.ladder.time_limit import TimeLimitError

INSTEAD = "; `--write-subject my_setup.py` writes a setup to fill in instead"
_MICROBATCHES = 64  # gradients without an update after which a step is over


class OwnTraining(StoriesError):
    """The script starts a training of this package, which needs no capture: ``subject`` is that of its run."""

    def __init__(self, target: str, subject: Subject):
        super().__init__(
            f"{target}: trains by mlxstories itself, and needs no setup: `mlxstories debug` takes it"
        )
        self.subject = subject


class Loop(Watcher):
    """One script under watch, driven by the ladder.

    Attributes:
        waiting: the gradient that the script waits for, None where it has ended.
        failed: what the script raised behind an update of its, and the loss before; None where it did not.
        lead: gradients that are passed over when the loop is begun anew, for a warmup by hand.
        log: the file that holds what the script prints.
    """

    def __init__(
        self,
        target: str,
        argv: Sequence[str],
        *,
        module: bool = False,
        settings: Settings | None = None,
        cell: int | None = None,
    ):
        super().__init__()
        self.log = new_log()
        self._start = lambda: Script(target, argv, self.log, module=module, settings=settings, cell=cell)
        self.target = target
        self._named = f"-m {target}" if module else target
        self.lead = 0
        self.failed: tuple[Exception, float] | None = None
        self._device, key = mx.default_device(), random_key()
        try:
            self.begin()
        except BaseException:
            self.close()
            put_random_key(key)
            raise

    def begin(self) -> None:
        """Run the script from its beginning to its first gradient."""
        if self.script is not None:
            self.script.close()
        self.reset()
        self.script = self._start()
        hooks.install(self.script.world.patches, self, self.script.world.files)
        self.waiting: GradientCall | None = None
        try:
            self.waiting = self.script.start()
        except TimeLimitError as error:
            if self.refused is None:
                raise TimeLimitError(f"{error}, and no gradient was asked of MLX by then") from error
        if self.trainer is not None:
            raise OwnTraining(self.target, subject_of_trainer(self.trainer))
        if self.waiting is None:
            instead = f"; {own_arguments(self._named)}" if self.script.misused else INSTEAD
            raise StoriesError(f"{self.target}: {self._why()}{instead}")

    def begin_again(self) -> None:
        """Run to the first gradient that is not passed over."""
        self.begin()
        got: list = []

        def pass_over(call: GradientCall) -> Any:
            got[:] = got or [call.run()]
            return got[0]

        seen = len(self.seen.updates)
        self.skipping = True
        for _ in range(self.lead):
            if self.waiting is not None:
                self.advance(pass_over)
        self.skipping = False
        del self.seen.updates[seen:]  # what is passed over was seen before
        if self.waiting is None:
            self.begin()

    def _why(self) -> str:
        if self.refused:
            return self.refused
        ended = self.script.ended
        output = f" (its output: {self.log.name})" if self.script.world.written else ""
        if ended == "ended":
            return f"ended without taking a gradient of a model; defines no subject() either{output}"
        return f"{ended}, before any training{output}"

    def advance(self, gradient: Callable[[GradientCall], Any]) -> Any:
        """Have the script's gradient be ``gradient(call)`` and run on to the next; returns what it got."""
        got = []

        def answer(call):
            self._busy = True
            try:
                got.append(gradient(call))
            finally:
                self._busy = False
            self.left = self.weights()
            return got[0]

        self._since += 1
        self.waiting = self.script.answer(answer)
        if not got or (self.script.error is not None and self.waiting is None):
            raise self.script.error or StoriesError(f"{self.target}: {self.script.ended}")
        return got[0]

    @contextmanager
    def what_follows(self, done: Callable[[], bool], losses: list[Any]) -> Iterator[None]:
        """Inside, an exception of the script's ends its loop and nothing else, where all that is wanted of it is
        ``done``, as when it validates or saves; it is kept as ``failed`` with the last of the ``losses``."""
        try:
            yield
        except Exception as error:
            if self.waiting is not None or self.script.error is not error or not done():
                raise
            self.failed = self.failed or (error, float(losses[-1]))

    def to_an_update(self, gradient: Any) -> None:
        """Run on to the end of the update under way, with this for each gradient: otherwise the first step of the
        ladder would add its gradients to those of other weights."""
        for _ in range(_MICROBATCHES):
            if self.waiting is None or not self._since:
                break
            self.advance(lambda _: gradient)

    def step(
        self, model: nn.Module, optimizer: Optimizer, change: Callable[[GradientCall], GradientCall]
    ) -> mx.array:
        """One update by the script's own loop, on gradients of ``change(call)``; returns the mean loss."""
        if self.waiting is None:
            self.begin_again()
        self.model.update(model.parameters())
        self._hand(optimizer)
        losses: list[mx.array] = []

        def learn(call: GradientCall) -> Any:
            result = call.run()
            losses.append(call.loss_of(result))
            return result

        before = self.updated
        never = not self.seen.updates and self._since >= _MICROBATCHES  # then none is waited for
        most = 1 if never else _MICROBATCHES
        while self.updated == before and len(losses) < most and self.waiting is not None:
            with self.what_follows(lambda: self.updated > before or self.moved(), losses):
                self.advance(lambda call: learn(change(call)))
        model.update(self.model.parameters())
        self._take_back(optimizer)
        return sum(losses) / len(losses)

    def _hand(self, optimizer: Optimizer) -> None:
        self.handed = optimizer
        if not any(int(part.step) for part in parts(optimizer)):
            for own, first in self.others.values():
                share(clone(first), own)
        if self.own is not None:
            optimizer.into(self.own)
        elif self.optimizer is not None:
            share(optimizer, self.optimizer)

    def _take_back(self, optimizer: Optimizer) -> None:
        self.handed = None
        if self.own is not None:
            optimizer.take(self.own)
        elif self.optimizer is not None:
            share(self.optimizer, optimizer)

    def close(self) -> None:
        """End the script and put everything back; its log stays if it printed anything. A second call does nothing."""
        if self.log.closed:
            return
        if self.script is not None:
            self.script.close()
        mx.set_default_device(self._device)
        printed = self.script is not None and self.script.world.written
        self.log.close()
        if not printed:
            Path(self.log.name).unlink(missing_ok=True)
