"""The lines of an optimiser's own code where numbers stop being finite, and where its update ends."""

from __future__ import annotations

from types import FrameType

import mlx.core as mx
from mlx.optimizers import Optimizer

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.samples import probe_batch
from mlxstories.ladder.bench.step.optimizers import parts
from mlxstories.ladder.where.calls import arrays, traced
from mlxstories.ladder.where.places import Line, own_file, updated_in


def breaks(bench: Bench) -> Line | None:
    """The first line of the user's optimiser, in its first update, after which a variable or its state is not finite.
    None where it is a library's, or within `mx.compile`."""
    follow = _Follow()
    model, optimizer = bench.model(), bench.optimizer()
    model.train()
    with traced(follow.entered):
        bench.step(model, optimizer, probe_batch(bench, 0))
    return follow.found


def ends(bench: Bench) -> Line | None:
    """The line at which the user's optimiser returns the new weights; None where it is a library's."""
    return next((line for part in parts(bench.optimizer()) if (line := updated_in(type(part)))), None)


class _Follow:
    """Looks at the variables of an optimiser's methods after each line.

    Attributes:
        found: the line.
    """

    def __init__(self):
        self.found: Line | None = None
        self._last: dict[FrameType, int] = {}  # the line that each frame has begun

    def entered(self, frame: FrameType, event: str, _):
        own = isinstance(frame.f_locals.get("self"), Optimizer) and own_file(frame.f_code.co_filename)
        if self.found or not own or _broken(frame):  # one that is handed NaN is not where they begin
            return None
        self._last[frame] = frame.f_lineno
        return self._next

    def _next(self, frame: FrameType, event: str, value):
        if self.found is None and (_broken(frame) or (event == "return" and _any_broken(value))):
            self.found = Line(frame.f_code.co_filename, self._last[frame], frame.f_code.co_name)
        self._last[frame] = frame.f_lineno
        return self._next


def _broken(frame: FrameType) -> bool:
    return _any_broken([v for name, v in frame.f_locals.items() if name != "self"])


def _any_broken(value) -> bool:
    floats = [a for a in arrays(value) if mx.issubdtype(a.dtype, mx.floating)]
    return any(bool(mx.any(~mx.isfinite(a))) for a in floats)
