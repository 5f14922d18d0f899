"""Training and evaluation mode of each module: a part may stay in evaluation mode while the rest trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mlx.nn as nn

Modes = list[tuple[nn.Module, bool]]
"""Whether each module of a model is in training mode."""


def modes(model: nn.Module) -> Modes:
    """The modes of all of its modules."""
    return [(module, module.training) for module in model.modules()]


def put_modes(kept: Modes) -> None:
    """Restore what `modes` gave."""
    for module, training in kept:
        module._training = training


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Inside, all of a model is in training or in evaluation mode."""
    kept = modes(model)
    model.train(training)
    try:
        yield
    finally:
        put_modes(kept)
