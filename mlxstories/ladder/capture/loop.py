"""The script's own training loop, paused at each of its gradients until the ladder says what to do with it."""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.optimizers import Optimizer

from mlxstories.errors import StoriesError
from mlxstories.ladder.capture import hooks
from mlxstories.ladder.capture.copies import clone, leaves
from mlxstories.ladder.capture.hooks import GradientCall
from mlxstories.ladder.capture.optimizers import Shell, find_own, share
from mlxstories.ladder.capture.places import Line, assigned, holder, stack
from mlxstories.ladder.capture.running import Script
from mlxstories.ladder.optimizers import parts, read_rate

_THREAD = "trains in a thread of its own, which cannot be watched"
_MICROBATCHES = 64  # gradients without an update after which a step is over


@dataclass
class Update:
    """One update as it really came: gradients since the last one, learning rate, its line, and whether the optimiser
    had made none before (None where it is passed over)."""

    gradients: int
    rate: float | None
    line: Line | None
    fresh: bool | None = None


@dataclass
class Forward:
    """A call of the model outside of gradients: [B, T] ids, the argmax at each cell, the mode and the lines."""

    ids: Any
    best: Any
    training: bool
    lines: list[Line]


@dataclass
class Seen:
    """What only the script itself shows, in the order of its happening."""

    updates: list[Update] = field(default_factory=list)
    forwards: list[Forward] = field(default_factory=list)
    gradient: list[Line] = field(default_factory=list)
    drawn: Line | None = None  # the line that hands over the batch
    notes: list[str] = field(default_factory=list)
    compiled: list[tuple] = field(default_factory=list)


class Loop:
    """One script under watch.

    Attributes:
        waiting: the gradient that the script waits for, None where it has ended.
        model, optimizer: the script's own objects; ``snapshot`` and ``first_optimizer`` are copies from before
            the first gradient and update.
        skipping: updates are passed over, so that the loop runs at the speed of its data.
        handed: the optimiser of the ladder's that stands for the script's own while it steps.
    """

    def __init__(self, target: str, argv: Sequence[str], *, module: bool = False):
        self.log = tempfile.NamedTemporaryFile(  # noqa: SIM115  (stays, for the user to read)
            "w",
            buffering=1,
            prefix="mlxstories-",
            suffix=".log",
            delete=False,
            encoding="utf-8",
            errors="replace",
        )
        self._start = lambda: Script(target, argv, self.log, module=module)
        self.target = target
        self.seen = Seen()
        self.snapshot: nn.Module | None = None
        self.first_optimizer: Optimizer | None = None
        self.made: Line | None = None  # where the optimiser was made
        self._making: dict[int, list[Line]] = {}
        self.script: Script | None = None
        try:
            self.begin()
        except BaseException:
            self.close()
            raise

    # --- driven by the ladder --------------------------------------------------------------------

    def begin(self) -> None:
        """Run the script from its beginning to its first gradient."""
        if self.script is not None:
            self.script.close()
        self.model = self.optimizer = self.own = self.handed = None
        self.skipping = self._busy = False
        self._since = self.updated = 0
        self.script = self._start()
        hooks.install(self.script.world.patches, self)
        self.waiting: GradientCall | None = self.script.start()
        if self.waiting is None:
            raise StoriesError(f"{self.target}: {self._why()}")

    def _why(self) -> str:
        ended, log = self.script.ended, self.log.name
        if _THREAD in self.seen.notes:
            return _THREAD
        if ended == "ended":
            return (
                f"ended without taking a gradient of a model; defines no subject() either (its output: {log})"
            )
        return f"{ended}, before any training (its output: {log})"

    def advance(self, gradient: Callable[[GradientCall], Any]) -> Any:
        """Have the script's gradient be ``gradient(call)`` and run on to the next; returns what it got."""
        got = []

        def answer(call):
            self._busy = True
            try:
                got.append(gradient(call))
            finally:
                self._busy = False
            return got[0]

        self._since += 1
        self.waiting = self.script.answer(answer)
        if not got or (self.script.error is not None and self.waiting is None):
            raise self.script.error or StoriesError(f"{self.target}: {self.script.ended}")
        return got[0]

    def step(
        self, model: nn.Module, optimizer: Optimizer, change: Callable[[GradientCall], GradientCall]
    ) -> mx.array:
        """One update by the script's own loop, on gradients of ``change(call)``; returns the mean loss."""
        if self.waiting is None:
            self.begin()
        self.model.update(model.parameters())
        self._hand(optimizer)
        losses: list[mx.array] = []

        def learn(call: GradientCall) -> Any:
            result = call.run()
            losses.append(call.loss_of(result))
            return result

        before = self.updated
        while self.updated == before and len(losses) < _MICROBATCHES and self.waiting is not None:
            self.advance(lambda call: learn(change(call)))
        model.update(self.model.parameters())
        self._take_back(optimizer)
        return sum(losses) / len(losses)

    def _hand(self, optimizer: Optimizer) -> None:
        self.handed = optimizer
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
        """End the script and put everything back; what it printed stays in its log."""
        if self.script is not None:
            self.script.close()
        self.log.close()

    # --- told by the hooks -----------------------------------------------------------------------

    @property
    def listening(self) -> bool:
        return not self._busy and (
            self.script.running or threading.current_thread() is not threading.main_thread()
        )

    def on_gradient(self, call: GradientCall) -> Any:
        if not self.script.running:
            self.on_note(_THREAD)
            raise SystemExit  # ends that thread
        if call.model is None:
            self.on_note("a gradient without a module was passed over")
            return self._unwatched(call)
        if self.model is None:
            self._met(call)
        if call.model is not self.model:
            self.on_note(
                f"a second model is trained, a {type(call.model).__name__}: only the first is examined"
            )
            return self._unwatched(call)
        if not self.seen.gradient:
            self.seen.gradient = stack(sys._getframe())
            self.seen.drawn = holder(
                sys._getframe(), [array for _, array in leaves([call.args, call.kwargs])]
            )
        return self.script.ask(call)(call)

    def _met(self, call: GradientCall) -> None:
        self.model = call.model
        self.own = find_own(sys._getframe())
        if self.snapshot is None:
            self.snapshot = clone(call.model)
            if self.own is not None:
                self.first_optimizer = Shell(self.own)
                self.made = assigned(sys._getframe(), self.own)
        self._watch(type(call.model))

    def _unwatched(self, call: GradientCall) -> Any:
        self._busy = True
        try:
            return call.run()
        finally:
            self._busy = False

    def _watch(self, cls: type) -> None:
        real = cls.__call__

        def call(module, *args, **kwargs):
            out = real(module, *args, **kwargs)
            if self.listening and module is self.model and len(self.seen.forwards) < 600:
                self._forward(args, out)
            return out

        self.script.world.patches.replace(cls, "__call__", call)

    def _forward(self, args: tuple, out: Any) -> None:
        logits = out[0] if isinstance(out, (tuple, list)) else out
        if (
            not args
            or not isinstance(args[0], mx.array)
            or not isinstance(logits, mx.array)
            or logits.ndim != 3
        ):
            return
        best = mx.argmax(logits, axis=-1) if len(args[0]) == 1 else None
        self.seen.forwards.append(Forward(args[0], best, self.model.training, stack(sys._getframe(1))))

    def on_update(self, optimizer: Optimizer, apply: Callable, gradients: Any, nothing: Any) -> Any:
        if self.model is None:
            return self._applied(apply, optimizer, gradients)
        if self.first_optimizer is None:
            self.first_optimizer = clone(optimizer)
            self.made = next(iter(self._making.get(id(optimizer), [])[-1:]), None)
        self.optimizer = optimizer
        self._count(optimizer)
        if self.skipping:
            return nothing
        handed = self.handed
        if type(handed) is not type(optimizer):
            return self._applied(apply, optimizer, gradients)
        # Through the ladder's optimiser, which may watch what reaches it, on the state of the script's.
        share(optimizer, handed)
        result = self._applied(apply, handed, gradients)
        share(handed, optimizer)
        return result

    def _applied(self, apply: Callable, optimizer: Optimizer, gradients: Any) -> Any:
        self._busy = True
        try:
            return apply(optimizer, gradients)
        finally:
            self._busy = False

    def on_assignment(self, model: nn.Module, assign: Callable[[], Any]) -> Any:
        """An update by hand, or by an optimiser that is none of MLX's."""
        if model is not self.model or self.optimizer is not None or not self._since:
            return assign()
        self._count(self.own)
        return model if self.skipping else assign()

    def _count(self, optimizer: Any) -> None:
        line = next(iter(stack(sys._getframe(2))[-1:]), None)
        rate, fresh = None, None
        if isinstance(optimizer, Optimizer):
            rate = read_rate(optimizer)
            fresh = None if self.skipping else all(int(part.step) == 0 for part in parts(optimizer))
        self.seen.updates.append(Update(self._since, rate, line, fresh))
        self._since = 0
        self.updated += 1

    def on_made(self, optimizer: Optimizer) -> None:
        self._making.setdefault(id(optimizer), stack(sys._getframe(1)))

    def on_loss(self, logits: mx.array, targets: mx.array) -> None:
        pass

    def on_compile(self, function: Callable, inputs: Any, outputs: Any) -> None:
        self.seen.compiled.append((function, inputs, outputs))

    def on_note(self, text: str) -> None:
        if text not in self.seen.notes:
            self.seen.notes.append(text)
