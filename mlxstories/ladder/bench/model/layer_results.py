"""Calls of layers without weights, and whether what they return reaches a logit."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
from mlx.utils import tree_flatten

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.model.consistency import noised, plain, short
from mlxstories.ladder.where.calls import Call, calls
from mlxstories.ladder.where.dropped import noisy
from mlxstories.ladder.where.places import Line

_LENGTH, _LINES = 32, 24  # tokens of a row; lines that are tried


@dataclass(frozen=True)
class LayerResult:
    """What the calls from one line return.

    Attributes:
        line: of the code that is examined.
        kind: the layer's class.
        moved: largest change of what the model returns, relative to the logits' spread, when noise as large as what
            a call returns is added to it: of the call that moves it most.
    """

    line: Line
    kind: str
    moved: float


@measurement
def layer_results(bench: Bench) -> list[LayerResult]:
    """Add noise to what one layer without weights returns, layer by layer. Left out are layers within a layer whose own
    result moves nothing, such as an expert that no token chooses, and models whose calls differ from time to time."""
    first, model = plain(bench), noised(bench)
    model.eval()
    ids = short(bench, slice(2), _LENGTH).device().inputs

    def passed(changed: int | None = None) -> list[Call]:
        bench.seed_all(1)
        with bench.calling("model(tokens)"):
            return calls(model, ids, lambda index, out: noisy(out) if index == changed else out)

    seen = passed()

    def moved(index: int) -> float:
        again = passed(index)
        return _apart(seen[-1], again[-1]) / first.spread if len(again) == len(seen) else float("inf")

    by_line: dict[Line, list[int]] = {}
    for index, call in enumerate(seen[:-1]):
        if call.lines and call.after and not tree_flatten(call.module.parameters()):
            by_line.setdefault(call.lines[-1], []).append(index)
    found = []
    for line, indices in list(by_line.items())[:_LINES]:
        most = 0.0
        for index in indices:
            around = [seen.index(call) for call in seen[index].within()][:-1]
            most = max(most, moved(index) if all(moved(outer) for outer in around) else float("inf"))
            if most:
                break
        found.append(LayerResult(line, type(seen[indices[0]].module).__name__, most))
    return found


def _apart(one: Call, other: Call) -> float:
    """The largest difference in anything that a model returns: a loss may use further outputs."""
    pairs = zip(one.after, other.after, strict=True)
    return max(
        (float(mx.abs(a.astype(mx.float32) - b.astype(mx.float32)).max()) for a, b in pairs), default=0.0
    )
