"""The line at which a function of a subject's does what it is for: asks the model, or has it updated."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import CodeType, FrameType

import mlx.nn as nn
from mlx.optimizers import Optimizer

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.evaluation import evaluation_batches
from mlxstories.ladder.bench.material import probe_batch, sample
from mlxstories.ladder.where.places import Line, own_file

_TOKENS = 3  # that are generated
_PROMPT = 4  # tokens


def worked(bench: Bench, part: str) -> Line | None:
    """The line of ``evaluate`` or ``generate`` that calls the model, and of ``train_step`` that updates it, directly
    or in what it calls; where that is left out, the last one that is run.

    None for other parts, and where the function is not written in Python.
    """
    run = {"evaluate": _evaluate, "generate": _generate, "train_step": _step}.get(part)
    function = inspect.unwrap(getattr(bench.subject, part)) if run else None
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    if run is None or not isinstance(code, CodeType) or not own_file(code.co_filename):
        return None
    watch = _Watch(code, _updates if part == "train_step" else _asks)
    kept = sys.gettrace()
    sys.settrace(watch.entered)
    try:
        run(bench)
    finally:
        sys.settrace(kept)
    line = watch.found or watch.last
    return Line(code.co_filename, line, code.co_name) if line else None


def _evaluate(bench: Bench) -> None:
    model = bench.model()
    bench.subject.evaluate(model, [batch.user() for batch in evaluation_batches(bench)[:1]])


def _generate(bench: Bench) -> None:
    model, prompt = bench.model(), sample(bench).inputs[0, :_PROMPT]
    bench.subject.generate(model, [max(0, int(token)) for token in prompt], _TOKENS)


def _step(bench: Bench) -> None:
    bench.step(bench.model(), bench.optimizer(), probe_batch(bench, 0))


def _asks(frame: FrameType) -> bool:
    return frame.f_code.co_name == "__call__" and isinstance(frame.f_locals.get("self"), nn.Module)


def _updates(frame: FrameType) -> bool:
    names = ("update", "apply_gradients")
    return frame.f_code.co_name in names and isinstance(frame.f_locals.get("self"), Optimizer)


class _Watch:
    """Follows the frame of a function.

    Attributes:
        found: its line from which the first call is made that does the work.
        last: the last line of it that was run.
    """

    def __init__(self, code: CodeType, works: Callable[[FrameType], bool]):
        self.code, self.works = code, works
        self.found: int | None = None
        self.last: int | None = None

    def entered(self, frame: FrameType, event: str, _):
        if frame.f_code is self.code:
            return self._own
        if self.found is None and self.works(frame):
            outer: FrameType | None = frame
            while outer is not None and outer.f_code is not self.code:
                outer = outer.f_back
            self.found = outer.f_lineno if outer else None
        return None

    def _own(self, frame: FrameType, event: str, _):
        if event == "line":
            self.last = frame.f_lineno
        return self._own
