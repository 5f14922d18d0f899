"""The line that makes batches, where a generator of the user's does."""

from __future__ import annotations

import inspect

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.where.places import Line, line_of, own_file

# of which batches come, not of what they hold
_WHICH = ("constant-batches", "texts-never-seen", "train-val-overlap")


def made(bench: Bench, code: str, part: str) -> Line | None:
    """Where the generator begins that says which batches come, or where it yields, for what they hold.

    Args:
        part: ``train_batches`` or ``val_batches``.
    """
    batches = (
        bench.subject.train_batches(bench.seed) if part == "train_batches" else bench.subject.val_batches()
    )
    if not inspect.isgenerator(batches) or not own_file(batches.gi_code.co_filename):
        return None
    if code in _WHICH:
        return line_of(batches.gi_code)
    next(batches, None)
    frame = batches.gi_frame
    line = Line(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name) if frame else None
    batches.close()
    return line
