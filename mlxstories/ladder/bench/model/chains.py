"""Linear layers that are given just what another one makes."""

from __future__ import annotations

import mlx.nn as nn

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.model.inside import Seen, inside


@measurement
def chained(bench: Bench) -> list[tuple[str, str]]:
    """Paths of linear layers and of those that are given their output itself, as the same array; pairs whose middle is
    narrower than what goes in and out, as of low-rank layers, are left out."""
    layers = {path: call for path, call in inside(bench).calls.items() if isinstance(call.module, nn.Linear)}
    makers = {id(call.made): (path, call) for path, call in layers.items()}
    pairs = [
        (*makers[id(call.given)], path, call) for path, call in layers.items() if id(call.given) in makers
    ]
    return [(first, second) for first, one, second, other in pairs if not _narrow(one, other)]


def _narrow(one: Seen, other: Seen) -> bool:
    return one.made.shape[-1] < min(one.given.shape[-1], other.made.shape[-1])
