"""What the hooks report of a script, and what becomes of its gradients and updates while it is watched."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.optimizers import Optimizer

from mlxstories.ladder.bench.step.optimizers import parts, read_rate
from mlxstories.ladder.capture.accumulation import Taken, collect
from mlxstories.ladder.capture.copies import clone, leaves
from mlxstories.ladder.capture.expressions import Making, making
from mlxstories.ladder.capture.forwards import Forwards
from mlxstories.ladder.capture.hooks import GradientCall, Listed
from mlxstories.ladder.capture.optimizers import Shell, find_own, share
from mlxstories.ladder.capture.places import assigned, holder
from mlxstories.ladder.capture.rates import meant
from mlxstories.ladder.capture.record import Saved, Seen, Update, compiled
from mlxstories.ladder.capture.run_length import rounds, seldom
from mlxstories.ladder.capture.running import Script, Stop
from mlxstories.ladder.capture.tokenizer import at_hand
from mlxstories.ladder.where.places import Line, defined, own_file, stack
from mlxstories.training.trainer import Trainer
from mlxstories.trees import by_path

_ARRAYS = 8  # gradients of arrays alone after which no model is waited for
_EARLY = 8  # updates by which a loop that goes on has begun
_WARMING = 4  # updates at most of a step that is only tried or compiled, on rows of any kind


class Watcher(Forwards):
    """The listener of one script.

    Attributes:
        model, optimizer: the script's own objects; ``own`` is an optimiser that is none of MLX's.
        snapshot, first_optimizer: copies from before the first gradient and update.
        made: where the optimiser was made.
        makings: how modules and optimisers were made, by their ids.
        skipping: updates are passed over, so that the loop runs at the speed of its data.
        handed: the optimiser of the ladder's that stands for the script's own while it steps.
        updated: updates so far.
        refused: why the script was ended before its model was met.
        trainer: of a training of our own, of which no more need be seen.
        left: the weights as the last gradient left them.
        taken: gradients since the last update, while they are recorded.
        others: optimisers beside the first, each with a copy from before its first update.
        spare: gradients at the beginning that are none of the training's, as of a validation or a warm-up: not watched.
        came_to_nothing: gradients before that of another model of the same class, with none of which the first one was
            updated.
        stacks: of the gradients before the first few updates: their number, the updates made by then, and their lines.
    """

    script: Script | None = None
    snapshot: nn.Module | None = None
    first_optimizer: Optimizer | None = None
    made: Line | None = None
    refused: str | None = None
    trainer: Trainer | None = None
    spare = came_to_nothing = 0

    def __init__(self):
        self.seen = Seen()
        self._home = threading.current_thread()  # in which the ladder and the script take turns
        self._arrays = 0
        self._made_at: dict[int, list[Line]] = {}
        self.makings: dict[int, Making] = {}
        self.reset()

    def reset(self) -> None:
        """Forget the objects of a run of the script that is over."""
        self.model = self.optimizer = self.own = self.handed = self.left = None
        self.skipping = False
        self._since = self.updated = self._gradients = 0
        self.stacks: list[tuple[int, int, tuple[Line, ...]]] = []
        self.taken: list[Taken] = []
        self.others: dict[int, tuple[Optimizer, Optimizer]] = {}
        self._unused: dict[int, Optimizer] = {}  # copies from before the updates of spare gradients
        self.forget()

    @property
    def listening(self) -> bool:
        return not self._busy and (self.script.running or threading.current_thread() is not self._home)

    def on_gradient(self, call: GradientCall) -> Any:
        if not self.script.running:
            if self.model is None:
                self.refused = f"trains in a thread of its own{_here()}, which cannot be watched"
                _thread.interrupt_main(signal.SIGALRM)  # it may wait for this thread, which ends here
            raise SystemExit
        if self.script.before_the_wanted_cell() or self._is_spare():
            return self._unwatched(call.run)
        if call.model is None:
            return self._of_arrays(call)
        if self.model is None:
            self._met(call)
        if call.model is not self.model:
            if not (self.updated or self.spare) and type(call.model) is type(self.model):
                self.came_to_nothing = self._gradients - 1
                raise Stop
            self.on_note(
                f"a second model is trained{_here()}, a {type(call.model).__name__}: only the first, "
                f"a {type(self.model).__name__}, is examined"
            )
            return self._unwatched(call.run)
        self._moved_unseen()
        self.seen.evaluations.gradient(self.script.world.written)
        if not self.seen.gradient or (self.seen.rounds is None and not self.updated):
            self._look(call, sys._getframe())
        if self.updated < _EARLY and self.handed is None:
            self.stacks.append((self._gradients, self.updated, tuple(stack(sys._getframe()))))
        return self.script.ask(call)(call)

    def _is_spare(self) -> bool:
        self._gradients += 1
        return self._gradients <= self.spare

    @property
    def unused(self) -> int:
        """Gradients at the beginning whose lines do not occur again where the loop goes on, if few updates or none are
        made of them."""
        last = max((updates for _, updates, _ in self.stacks), default=0)
        loop = {lines for _, updates, lines in self.stacks if updates >= max(1, last - 1)}
        used = [(number, updates) for number, updates, lines in self.stacks if lines in loop]
        number, updates = used[0] if used else (1, 0)
        return number - 1 if updates <= min(_WARMING, last // 2) else 0

    def begin_anew(self, spare: int) -> None:
        """Forget all that was seen, since the first ``spare`` gradients do not belong to the training."""
        self.spare, self.came_to_nothing = spare, 0
        self.seen = Seen(notes=self.seen.notes)
        self.snapshot = self.first_optimizer = self.made = None

    def _look(self, call: GradientCall, frame: FrameType) -> None:
        """What the frames at a gradient tell; the first one may be taken before the loop begins."""
        self.seen.gradient, self.seen.loss = stack(frame), defined(call.function)
        self.seen.rounds, self.seen.seldom = rounds(frame), seldom(frame)
        self.seen.tokenizers = at_hand(frame)
        self.seen.drawn = holder(frame, [array for _, array in leaves([call.args, call.kwargs])])

    def _moved_unseen(self) -> None:
        """Count an update by an optimiser that sets the weights itself, if most of them have changed since the last
        gradient."""
        if self._since and self.optimizer is None and self.moved():
            self._count(self.own)

    def moved(self) -> bool:
        """Whether most weights have changed since the last gradient."""
        left, now = self.left or [], self.weights()
        return 2 * sum(a is not b for a, b in zip(left, now, strict=False)) > len(now)

    def weights(self) -> list[mx.array]:
        return list(by_path(self.model.trainable_parameters()).values())

    def _of_arrays(self, call: GradientCall) -> Any:
        """A gradient in which no module is at hand: passed over, unless the whole training is so."""
        self._arrays += 1
        if self.model is None and self._arrays >= _ARRAYS:
            self.refused = f"takes gradients of arrays that no nn.Module holds{_here()}"
            raise Stop
        self.on_note(f"a gradient without a module was passed over{_here()}")
        return self._unwatched(call.run)

    def _met(self, call: GradientCall) -> None:
        self.model = call.model
        if self.first_optimizer is None or isinstance(self.first_optimizer, Shell):
            self.own = find_own(sys._getframe())
        if self.snapshot is None:
            self.snapshot = clone(call.model)
            if self.own is not None:
                self.first_optimizer = Shell(self.own)
                self.made = assigned(sys._getframe(), self.own)
        self.watch(type(call.model))

    def _unwatched(self, run: Callable, *args: Any) -> Any:
        self._busy = True
        try:
            return run(*args)
        finally:
            self._busy = False

    def on_update(self, optimizer: Optimizer, apply: Callable, gradients: Any, nothing: Any) -> Any:
        if self.model is None:
            if id(optimizer) not in self._unused:
                self._unused[id(optimizer)] = clone(optimizer)
            return self._unwatched(apply, optimizer, gradients)
        if self.first_optimizer is None or isinstance(self.first_optimizer, Shell):
            self.own = None  # what looked like one of the script's own is something else
            self.first_optimizer = self._unused.get(id(optimizer)) or clone(optimizer)
            self.made = next(iter(self._made_at.get(id(optimizer), [])[-1:]), None)
        beside = self.optimizer not in (None, optimizer) and not self._since  # of the same gradient
        if beside or type(optimizer) is not type(self.first_optimizer):
            self._beside(optimizer)
            return nothing if self.skipping else self._unwatched(apply, optimizer, gradients)
        handed = self.handed
        if handed is not None and self.optimizer is None:  # the loop was begun anew
            share(handed, optimizer)
        self.optimizer = optimizer
        taken = self.taken
        self._count(optimizer)
        if self.skipping:
            return nothing
        if handed is None:
            self.seen.updates[-1].collected = collect(taken, gradients)
        if type(handed) is not type(optimizer):
            return self._unwatched(apply, optimizer, gradients)
        # Through the ladder's optimiser, which may watch what reaches it, on the state of the script's.
        share(optimizer, handed)
        result = self._unwatched(apply, handed, gradients)
        share(handed, optimizer)
        return result

    def _beside(self, optimizer: Optimizer) -> None:
        """One more optimiser of the script's, as it was before its first update."""
        if id(optimizer) not in self.others:
            self.others[id(optimizer)] = optimizer, clone(optimizer)
        self.seen.shared = True
        self.on_note(
            f"of its optimisers the first, {type(self.first_optimizer).__name__}, is examined; a second one, "
            f"{type(optimizer).__name__}, is begun anew with it"
        )

    def on_assignment(self, model: nn.Module, assign: Callable[[], Any]) -> Any:
        """An update by hand, or by an optimiser that is not one of MLX's."""
        if model is not self.model or self.optimizer is not None or not self._since:
            return assign()
        self._count(self.own)
        return model if self.skipping else assign()

    def _count(self, optimizer: Any) -> None:
        self.updated += 1
        gradients, self._since, self.taken = self._since, 0, []
        if self.handed is not None:
            return
        line, rate, fresh = next(iter(stack(sys._getframe(2))[-1:]), None), None, None
        if isinstance(optimizer, Optimizer):
            rate = read_rate(optimizer)
            fresh = None if self.skipping else all(int(part.step) == 0 for part in parts(optimizer))
        told = meant(sys._getframe(2))
        self.seen.updates.append(
            Update(gradients, rate, line, fresh, meant=told, training=self.model.training)
        )

    def on_made(self, value: Optimizer | nn.Module, frame: FrameType) -> None:
        if self.handed is None and self.updated == 0:
            self.makings[id(value)] = making(value, frame)
        if isinstance(value, Optimizer):
            self._made_at.setdefault(id(value), stack(frame))
        elif self.model is None and _of_user(type(value)):
            self.watch(type(value))  # what is validated before it is trained

    def on_saved(self, values: Any, frame: FrameType) -> None:
        if self.model is None or self.handed is not None or not self.updated:
            return
        kept = {id(array) for _, array in leaves(values)}
        own, first = (by_path(m.trainable_parameters()) for m in (self.model, self.snapshot))
        names = {name for name, array in own.items() if id(array) in kept}
        line = next(iter(stack(frame)[-1:]), None)
        saved = self.seen.saved.setdefault(self.updated, Saved(set(), set(own), line))
        saved.names |= names
        saved.missing -= names
        saved.missing -= {n for n in saved.missing if n in first and mx.array_equal(own[n], first[n]).item()}

    def on_loaded(self) -> None:
        if self.snapshot is None:
            self.on_note("weights are loaded: the model that is examined is not a fresh one")

    def on_compiled(self, listed: Listed, run: Callable[[], Any]) -> Any:
        before = self.updated
        result = run()
        if self.seen.compiled is None and self.updated > before and self.model is not None:
            self.seen.compiled = compiled(listed, self.model, self.optimizer)
        return result

    def on_trainer(self, trainer: Trainer) -> None:
        """One of this package's own trainings: it is stopped before it makes a run, since its trainer says all there is
        to know."""
        if self.model is None:
            self.trainer = trainer
            raise Stop

    def on_note(self, text: str) -> None:
        if text not in self.seen.notes:
            self.seen.notes.append(text)


def _of_user(cls: type) -> bool:
    return own_file(getattr(sys.modules.get(cls.__module__), "__file__", None) or "<")


def _here() -> str:
    """The innermost of the user's lines that are at work."""
    line = next(iter(stack(sys._getframe(1))[-1:]), None)
    return f" at {line}" if line else ""
