"""The line at which a function of a subject's does what it is for: asks the model, or has it updated."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable
from contextlib import suppress
from types import CodeType, FrameType

import mlx.nn as nn
from mlx.optimizers import Optimizer

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.evaluation import evaluation_batches
from mlxstories.ladder.bench.material import probe_batch, sample
from mlxstories.ladder.where.places import Line, own_file, parsed

_FIGURES = ("metric-mismatch", "padding-in-accuracy", "smoothed-validation-loss")
_TOKENS = 3  # that are generated
_PROMPT = 4  # tokens


def worked(bench: Bench, code: str, part: str) -> Line | None:
    """The line of ``evaluate`` or ``generate`` that calls the model, and of ``train_step`` that updates it, directly
    or in what it calls; where that is left out, the last one that is run. Of a wrong figure, the last line that changes
    what is returned. None for other parts, for a function that is not written in Python, and for one that fails by
    itself: it may not end.

    Args:
        code: of the finding.
    """
    run = {"evaluate": _evaluate, "generate": _generate, "train_step": _step}.get(part)
    function = inspect.unwrap(getattr(bench.subject, part)) if run else None
    body = getattr(getattr(function, "__func__", function), "__code__", None)
    if (
        run is None
        or code == "subject-error"
        or not isinstance(body, CodeType)
        or not own_file(body.co_filename)
    ):
        return None
    watch = _Watch(body, _updates if part == "train_step" else _asks)
    kept = sys.gettrace()
    sys.settrace(watch.entered)
    try:
        with suppress(Exception):  # called in ways that it need not bear: what was run till then is known
            run(bench)
    finally:
        sys.settrace(kept)
    line = _summed(body.co_filename, watch.lines) if code in _FIGURES else None
    line = line or watch.found or (watch.lines[-1] if watch.lines else None)
    return Line(body.co_filename, line, body.co_name) if line else None


def _summed(file: str, lines: list[int]) -> int | None:
    """The last of some lines that changes a variable which the last line of them returns."""
    nodes = [node for node in ast.walk(parsed(file)) if getattr(node, "lineno", 0) in lines]
    ends = [node for node in nodes if isinstance(node, ast.Return) and node.lineno == lines[-1]]
    read = {name.id for end in ends for name in ast.walk(end) if isinstance(name, ast.Name)}
    changed = [
        n.lineno for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store) and n.id in read
    ]
    return max(changed, default=None)


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
        lines: all of it that was run, in order.
    """

    def __init__(self, code: CodeType, works: Callable[[FrameType], bool]):
        self.code, self.works = code, works
        self.found: int | None = None
        self.lines: list[int] = []

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
            self.lines.append(frame.f_lineno)
        return self._own
