"""Lines of the user's own where `mx.stop_gradient` cuts a gradient off."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.ladder.bench.arrays import first_of
from mlxstories.ladder.patches import Patches
from mlxstories.ladder.where.places import Line, of_model, stack
from mlxstories.trees import by_path

_LINES = 8  # that are tried


def in_loss(loss: Callable[[], object]) -> Line | None:
    """The last line on which a loss stops a gradient."""
    with _watched() as lines:
        loss()
    return list(lines)[-1] if lines else None


def in_model(model: nn.Module, ids: np.ndarray, path: str) -> Line | None:
    """The line that, if it let the gradient through, would give this parameter one."""

    def reaches(line: Line | None) -> bool:
        with _watched(line) as found:
            tokens = mx.array(ids)
            _, gradients = nn.value_and_grad(model, lambda m: _scalar(m(tokens)))(model)
            lines.update(found)
            slope = by_path(gradients).get(path)
            return slope is not None and bool(mx.any(slope != 0))

    lines: dict[Line, None] = {}
    if reaches(None):
        return None
    return next((line for line in list(lines)[:_LINES] if reaches(line)), None)


def _scalar(out) -> mx.array:
    """A sum of the logits in which no gradient cancels."""
    logits = first_of(out)
    return (logits * mx.random.normal(logits.shape, key=mx.random.key(0))).sum()


@contextmanager
def _watched(through: Line | None = None) -> Iterator[dict[Line, None]]:
    """Within it the user's own lines that stop a gradient are noted, in their order; one of them may let it through."""
    lines: dict[Line, None] = {}
    real, patches = mx.stop_gradient, Patches()

    def stop(array, **kwargs):
        caller = sys._getframe(1)
        if not of_model(caller.f_code.co_filename):  # MLX's own losses stop some, too
            return real(array, **kwargs)
        line = stack(caller, of_model)[-1]
        lines[line] = None
        return array if line == through else real(array, **kwargs)

    patches.replace(mx, "stop_gradient", stop)
    with patches:
        yield lines
