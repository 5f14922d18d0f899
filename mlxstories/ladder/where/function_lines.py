"""The line where a function of a subject's does its work: calls the model, has it updated, or makes the optimiser."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from contextlib import suppress
from types import CodeType, FrameType

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.optimizers import Optimizer

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.evaluation.calls import evaluation_batches
from mlxstories.ladder.bench.samples import probe_batch, sample
from mlxstories.ladder.where.calls import traced
from mlxstories.ladder.where.places import Line, own_file, parsed

_FIGURES = ("metric-mismatch", "padding-in-accuracy", "smoothed-validation-loss")
_TOKENS = 3  # that are generated
_PROMPT = 4  # tokens
_BATCHES = 2  # that are evaluated


def function_line(bench: Bench, code: str, part: str) -> Line | None:
    """The line of ``evaluate`` or ``generate`` that calls the model, of ``train_step`` that updates it, and of
    ``optimizer`` that makes it, directly or in what it calls; where that is left out, the last one that is run. Where
    another function than the subject's own goes through the batches or tokens, it is a line of that. Of a wrong figure,
    the last line that changes what is returned, or the one that calls the model where it is not asked about the inputs.
    None for other parts, for a function that is not written in Python, and for one that fails by itself: it may not
    end.

    Args:
        code: of the finding.
    """
    run, works = {
        "evaluate": (_evaluate, _asks),
        "generate": (_generate, _asks),
        "train_step": (_step, _updates),
        "optimizer": (Bench.optimizer, _makes),
    }.get(part, (None, None))
    function = inspect.unwrap(getattr(bench.subject, part)) if run else None
    body = getattr(getattr(function, "__func__", function), "__code__", None)
    if (
        run is None
        or code == "subject-error"
        or not isinstance(body, CodeType)
        or not own_file(body.co_filename)
    ):
        return None
    watch = _Watch(body, works)
    # called in ways that it need not bear: what was run is known
    with traced(watch.entered), suppress(Exception):
        run(bench)
    frame, line = watch.within()
    if frame is None:
        return None
    if code in _FIGURES and not (watch.asked and _of_others(bench, watch.asked[0])):
        line = _summed(frame.f_code.co_filename, watch.lines[frame]) or line
    line = line or watch.lines[frame][-1]
    return Line(frame.f_code.co_filename, line, frame.f_code.co_name)


def _of_others(bench: Bench, asked: mx.array) -> bool:
    """Whether the model is asked about something else of the size of the inputs."""
    inputs = evaluation_batches(bench)[0].inputs
    return asked.shape == inputs.shape and not np.array_equal(np.array(asked), inputs)


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
    bench.subject.evaluate(model, [batch.user() for batch in evaluation_batches(bench)[:_BATCHES]])


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


def _makes(frame: FrameType) -> bool:
    return frame.f_code.co_name == "__init__" and isinstance(frame.f_locals.get("self"), Optimizer)


class _Watch:
    """Follows a function, and those that it calls, but no module.

    Attributes:
        lines: that were run, in order, by frame.
        ways: to each call that does the work, the frames and their lines, from the function inwards.
        asked: the first array that each such call is given.
    """

    def __init__(self, code: CodeType, works: Callable[[FrameType], bool]):
        self.code, self.works = code, works
        self.lines: dict[FrameType, list[int]] = {}
        self.ways: list[list[tuple[FrameType, int]]] = []
        self.asked: list[mx.array] = []

    def entered(self, frame: FrameType, event: str, _):
        own = own_file(frame.f_code.co_filename)
        if not (own or self.works(frame)) or (way := self._way(frame)) is None:
            return None
        if self.works(frame):
            self.ways.append(way[:-1])
            self.asked += [a for a in frame.f_locals.values() if isinstance(a, mx.array)][:1]
            return None
        self.lines[frame] = [frame.f_lineno]
        return self._own

    def _own(self, frame: FrameType, event: str, _):
        if event == "line":
            self.lines[frame].append(frame.f_lineno)
        return self._own

    def _way(self, frame: FrameType) -> list[tuple[FrameType, int]] | None:
        """The followed frames on the way to one, itself last; None outside of the function or within other work."""
        way = [(frame, frame.f_lineno)]
        while frame.f_code is not self.code:
            if frame.f_back is None or (len(way) > 1 and self.works(frame)):
                return None
            frame = frame.f_back
            if frame in self.lines:
                way.append((frame, frame.f_lineno))
        return way[::-1]

    def within(self) -> tuple[FrameType | None, int | None]:
        """The innermost frame within which all of the work is done, where it is done more than once, and its line that
        does it first."""
        frame, line = next(iter(self.lines), None), None
        for steps in zip(*self.ways, strict=False):
            if line is None or (len(self.ways) > 1 and all(step[0] is steps[0][0] for step in steps)):
                frame, line = steps[0]
            else:
                break
        return frame, line
