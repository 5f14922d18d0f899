"""Lines of the user's own that make indices through which MLX is asked for a gradient."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import mlx.core as mx

from mlxstories.ladder.patches import Patches
from mlxstories.ladder.where.places import Line, of_model, stack

_MAKERS = ("argmax", "argmin", "argpartition", "argsort")
_LINES = 8  # that are tried


def unstopped(gradient: Callable[[], object]) -> Line | None:
    """The line whose indices keep a gradient from being taken: it can be once all such indices are stopped, and can
    not if these are let through."""

    def fails(line: Line | None) -> bool:
        with _stopped(line) as found:
            try:
                gradient()
            except ValueError:
                return True
            finally:
                lines.update(found)
        return False

    lines: dict[Line, None] = {}
    if fails(None):
        return None
    return next((line for line in list(lines)[:_LINES] if fails(line)), None)


@contextmanager
def _stopped(through: Line | None) -> Iterator[dict[Line, None]]:
    """Within it what the user's own lines make indices with has no gradient, one of them aside; they are noted."""
    lines: dict[Line, None] = {}
    patches = Patches()

    def stopping(make):
        def made(*args, **kwargs):
            caller, indices = sys._getframe(1), make(*args, **kwargs)
            if not of_model(caller.f_code.co_filename):
                return indices
            line = stack(caller, of_model)[-1]
            lines[line] = None
            return indices if line == through else mx.stop_gradient(indices)

        return made

    for name in _MAKERS:
        patches.replace(mx, name, stopping(getattr(mx, name)))
    with patches:
        yield lines
