"""The script's own training loop, paused at each of its gradients until the ladder says what to do with it."""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
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
from mlxstories.ladder.capture.record import Forward, Seen, Update
from mlxstories.ladder.capture.running import Script
from mlxstories.ladder.optimizers import parts, read_rate

_THREAD = "trains in a thread of its own, which cannot be watched"
_MICROBATCHES = 64  # gradients without an update after which a step is over


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
        self.lead = 0  # gradients that are passed over when the loop is begun anew, for a warmup by hand
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

    def begin_again(self) -> None:
        """Run to the first gradient that is not passed over."""
        self.begin()
        got: list = []

        def pass_over(call: GradientCall) -> Any:
            got[:] = got or [call.run()]
            return got[0]

        self.skipping = True
        for _ in range(self.lead):
            if self.waiting is not None:
                self.advance(pass_over)
        self.skipping = False
        if self.waiting is None:
            self.begin()

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
            self.begin_again()
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
        if self.first_optimizer is None or isinstance(self.first_optimizer, Shell):
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
            if (
                self.listening
                and module is self.model
                and self.handed is None
                and len(self.seen.forwards) < 600
            ):
                self._forward(args, out)
            return out

        self.script.world.patches.replace(cls, "__call__", call)

    def _forward(self, args: tuple, out: Any) -> None:
        logits = out[0] if isinstance(out, (tuple, list)) else out
        if not args or not isinstance(args[0], mx.array) or getattr(logits, "ndim", 0) != 3:
            return
        best = mx.argmax(logits, axis=-1) if len(args[0]) == 1 else None
        mx.eval(best)
        self.seen.forwards.append(Forward(args[0], best, self.model.training, stack(sys._getframe(1))))

    def on_update(self, optimizer: Optimizer, apply: Callable, gradients: Any, nothing: Any) -> Any:
        if self.model is None:
            return self._applied(apply, optimizer, gradients)
        if self.first_optimizer is None or isinstance(self.first_optimizer, Shell):
            self.own = None  # what looked like one of the script's own is something else
            self.first_optimizer = clone(optimizer)
            self.made = next(iter(self._making.get(id(optimizer), [])[-1:]), None)
        if type(optimizer) is not type(self.first_optimizer):
            self.on_note(
                f"a second optimiser, {type(optimizer).__name__}, keeps its state between examinations"
            )
            return nothing if self.skipping else self._applied(apply, optimizer, gradients)
        handed = self.handed
        if handed is not None and self.optimizer is None:  # the loop was begun anew
            share(handed, optimizer)
        self.optimizer = optimizer
        self._count(optimizer)
        if self.skipping:
            return nothing
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
        self.updated += 1
        gradients, self._since = self._since, 0
        if self.handed is not None:
            return
        line = next(iter(stack(sys._getframe(2))[-1:]), None)
        rate, fresh = None, None
        if isinstance(optimizer, Optimizer):
            rate = read_rate(optimizer)
            fresh = None if self.skipping else all(int(part.step) == 0 for part in parts(optimizer))
        self.seen.updates.append(Update(gradients, rate, line, fresh))

    def on_made(self, optimizer: Optimizer) -> None:
        self._making.setdefault(id(optimizer), stack(sys._getframe(1)))

    def on_note(self, text: str) -> None:
        if text not in self.seen.notes:
            self.seen.notes.append(text)
