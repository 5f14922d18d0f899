"""What enters the first block of the untrained model: how large it is, and how much of it depends on the tokens."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.model.forward_pass import ROWS, ModuleCall, forward_pass, rms
from mlxstories.ladder.bench.samples import sample
from mlxstories.trees import by_path


@dataclass(frozen=True)
class Start:
    """How large what enters the first block is, beside the most that any block adds to it.

    Attributes:
        stream: root mean square of what enters the first block.
        added: largest root mean square of what a block adds, relative to that.
        where: path of the first block.
        loudest: path of the block that adds the most.
    """

    stream: float
    added: float
    where: str
    loudest: str


def _of_blocks(calls: dict[str, ModuleCall], depth: int) -> dict[str, ModuleCall]:
    """Calls of modules of a list, or within these, that take and give the same shape."""
    return {
        path: call
        for path, call in calls.items()
        if path.count(".") == depth
        and path.split(".")[1].isdigit()
        and call.given.shape == call.made.shape
        and call.given.ndim == 3
        and mx.issubdtype(call.given.dtype, mx.floating)
    }


def _has_matrix(module: nn.Module) -> bool:
    return any(a.ndim > 1 for a in by_path(module.parameters()).values())


@measurement
def stream_start(bench: Bench) -> Start | None:
    """Watch the blocks, which are modules of a list that take and return the same shape; where they are given more than
    the stream, the branches within them. None where there are none."""
    blocks = _of_blocks(forward_pass(bench).calls, 1)
    seen = blocks or _of_blocks(forward_pass(bench).calls, 2)
    if not seen:
        return None
    first = min(seen, key=lambda path: int(path.split(".")[1]))
    stream = rms(seen[first].given)
    if blocks:
        added = {path: rms(call.made - call.given) for path, call in blocks.items()}
    else:
        added = {path: rms(call.made) for path, call in seen.items() if _has_matrix(call.module)}
    if not (stream and added):
        return None
    loudest = max(added, key=added.__getitem__)
    return Start(stream, added[loudest] / stream, first, loudest)


@dataclass(frozen=True)
class TokenShare:
    """What enters the first block.

    Attributes:
        tokens: share of its variance that lies between rows at the same place, where only tokens differ.
        entered: path of the first module that is given it.
        table: path of the weights that positions are looked up in, where there are such.
    """

    tokens: float
    entered: str
    table: str | None


@measurement
def token_share(bench: Bench) -> TokenShare | None:
    """None where there are no numbered modules, or too few rows differ."""
    rows = sample(bench).rows(slice(0, ROWS)).inputs
    seen = {path: call.given for path, call in forward_pass(bench).calls.items()}
    first = next((path for path in seen if _numbered(path) and _stream(seen[path])), None)
    if first is None or len(np.unique(rows, axis=0)) < ROWS:
        return None
    stream = seen[first].astype(mx.float32)
    whole = float(stream.var(axis=(0, 1)).mean())
    if not whole:
        return None
    looked = (path for path, ids in seen.items() if mx.issubdtype(ids.dtype, mx.integer) and len(ids) != ROWS)
    table = next((f"{path}.weight" for path in looked), None)
    return TokenShare(float(stream.var(axis=0).mean()) / whole, first, table)


def _stream(given: mx.array) -> bool:
    return given.ndim == 3 and len(given) == ROWS and mx.issubdtype(given.dtype, mx.floating)


def _numbered(path: str) -> bool:
    return any(name.isdigit() for name in path.split("."))
