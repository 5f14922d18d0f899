"""Calls of a script's model outside of gradients, and the losses that it takes there."""

from __future__ import annotations

import sys
from functools import wraps
from types import FrameType
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlxstories.ladder.bench.arrays import first_of
from mlxstories.ladder.capture.copies import whole
from mlxstories.ladder.capture.model_uses import Use, at_work
from mlxstories.ladder.capture.passes import passed
from mlxstories.ladder.capture.record import Forward, Seen
from mlxstories.ladder.capture.running import Script, Stop
from mlxstories.ladder.time_limit import Deadline
from mlxstories.ladder.where.places import stack

_FORWARDS = 600  # that are kept
_USES = 16  # functions that call the model


class Forwards:
    """What of a `Watcher` sees them.

    Attributes:
        seen: where they are written down.
        deadline: for these calls; None for no limit.
    """

    script: Script
    seen: Seen
    model: nn.Module | None
    handed: Any
    listening: Any  # a property of the watcher's

    def forget(self) -> None:
        """Begin with a new run of the script."""
        self._busy = False
        self._watched: set[type] = set()
        self._given: mx.array | None = None  # the ids that the model was called with last
        self.deadline: Deadline | None = None

    def watch(self, cls: type) -> None:
        """Have the calls of a class's own objects be seen."""
        if cls in self._watched:
            return
        self._watched.add(cls)
        real = cls.__call__

        @wraps(real)
        def call(module, *args, **kwargs):
            before, state = self.seen.evaluations.taken, mx.random.state[0]
            asked = type(module) is cls and self._asked(module)
            if asked and args and whole(args[0]):  # no module within it, which is given what it made of them
                self._given = args[0]
            out = real(module, *args, **kwargs)
            if asked:
                # A model can have dropout heed an argument of its own, in whatever mode its layers are.
                drops = module.training and mx.random.state[0] is not state
                self._forward(module, args, out, self.seen.evaluations.taken > before, drops)
            return out

        self.script.world.patches.replace(cls, "__call__", call)

    def _asked(self, module: nn.Module) -> bool:
        """Whether the script itself calls its model, or one that may turn out to be it."""
        mine = self.model is None or module is self.model
        return mine and self.listening and self.handed is None

    def _forward(self, module: nn.Module, args: tuple, out: Any, lost: bool, drops: bool) -> None:
        """A call outside of gradients; ``lost`` where its loss was taken within it, ``drops`` where dropout was on."""
        if self.deadline is not None and self.deadline.passed:
            raise Stop  # a validation that is too long to be waited for
        logits = first_of(out)
        if not args or not isinstance(args[0], mx.array):
            return
        lines = stack(sys._getframe(1))
        if len(self.seen.uses) < _USES and tuple(lines) not in self.seen.uses and whole(args[0]):
            use = Use(module, at_work(sys._getframe(2)), args[0], module.training)
            self.seen.uses[tuple(lines)] = use
        if self.model is None or getattr(logits, "ndim", 0) != 3 or len(self.seen.forwards) >= _FORWARDS:
            return
        if self.seen.evaluations.open and not lost:
            self.seen.evaluations.forward(logits, args[0], sys._getframe(2), self.script.world.written)
        best = mx.argmax(logits, axis=-1) if len(args[0]) == 1 else None
        mx.eval(best)
        self.seen.forwards.append(Forward(args[0], best, drops, lines))

    def on_loss(self, logits: Any, targets: Any, weights: Any, frame: FrameType) -> None:
        if not self.seen.evaluations.open:
            return
        self._busy = True
        try:
            new = passed(logits, targets, weights, self._given, frame)
        finally:
            self._busy = False
        if new is not None:
            self.seen.evaluations.add(new, self.script.world.written)
