"""The script's optimiser and the ladder's: one state between two objects, and optimisers that are none of MLX's."""

from __future__ import annotations

from types import FrameType, ModuleType
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.optimizers import Optimizer

from mlxstories.ladder.bench.step.optimizers import parts
from mlxstories.ladder.capture.copies import clone
from mlxstories.ladder.where.places import user_frames

_RATES = ("learning_rate", "lr", "rate", "step_size")
_MARKS = (*_RATES, "state", "betas", "momentum", "weight_decay")


def share(source: Optimizer, target: Optimizer) -> None:
    """Have ``target`` go on from the state of ``source``."""
    for a, b in zip([source, *parts(source)], [target, *parts(target)], strict=False):
        b._state, b._initialized = a._state, a._initialized


def find_own(frame: FrameType | None) -> Any:
    """An optimiser that is not one of MLX's: an object in sight of these frames with ``update`` and a rate or state."""
    not_one = (dict, set, type, ModuleType, nn.Module, Optimizer)
    for own in user_frames(frame):
        for value in [*own.f_locals.values(), *own.f_globals.values()]:
            if isinstance(value, not_one) or not hasattr(value, "__dict__"):
                continue
            if callable(getattr(value, "update", None)) and any(hasattr(value, mark) for mark in _MARKS):
                return value
    return None


class Shell(Optimizer):
    """An optimiser that is not one of MLX's, as far as the ladder needs one: its state and learning rate.

    Its updates are made by the script; ``into`` and ``take`` carry what it holds to the script's own object and back.
    """

    def __init__(self, own: Any):
        super().__init__()
        self.take(own)

    def take(self, own: Any) -> None:
        """Hold what the script's own object holds."""
        held = {name: clone(value) for name, value in vars(own).items() if _is_state(value)}
        rate = next((held[name] for name in _RATES if name in held), None)
        self._state = {"step": self._state["step"], "own": held}
        if isinstance(rate, (int, float, mx.array)):
            self._state["learning_rate"] = mx.array(rate)

    def into(self, own: Any) -> None:
        """Put what is held into the script's own object."""
        vars(own).update(clone(self._state["own"]))


def _is_state(value: Any) -> bool:
    return isinstance(value, (int, float, mx.array, np.ndarray, dict, list, tuple))
