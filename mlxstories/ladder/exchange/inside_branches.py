"""A residual connection put in from outside: a block's input is added to what one of its branches returns."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import mlx.core as mx
import mlx.nn as nn

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.arrays import changed
from mlxstories.ladder.bench.samples import sample
from mlxstories.ladder.exchange.intervention import Intervention, is_numbered, site_of
from mlxstories.ladder.patches import reroute
from mlxstories.ladder.where.calls import Call, calls
from mlxstories.trees import by_path

_MOST = 4  # branches tried


def for_branches(bench: Bench) -> list[Intervention]:
    """One for each branch of the model's numbered blocks, in the order of the forward pass."""
    model = bench.noisy()
    model.eval()
    names = {id(module): name for name, module in model.named_modules() if name}
    seen = calls(model, sample(bench).rows(slice(0, 2)).device().inputs)
    found: dict[str, tuple[type, list[str]]] = {}
    for call in seen:
        block = call.parent
        if block is None or not is_numbered(names.get(id(block.module), "")) or not _ends(call, block, seen):
            continue
        outer, inner = names[id(block.module)], names.get(id(call.module), "")
        if inner.startswith(f"{outer}."):
            _, blocks = found.setdefault(inner.removeprefix(f"{outer}."), (type(block.module), []))
            if outer not in blocks:
                blocks.append(outer)
    return [
        Intervention(
            f"what comes into each block added to what its {branch} makes",
            "model",
            model=partial(_join, branch=branch, blocks=blocks),
            site=site_of("model", kind.__call__, f"{blocks[0]}.{branch}"),
        )
        for branch, (kind, blocks) in list(found.items())[:_MOST]
    ]


def _ends(call: Call, block: Call, seen: list[Call]) -> bool:
    """Whether a call is the last of a branch: it has matrices, returns the stream's shape, and shares its input with no
    other, unlike queries, keys and values."""
    shapes = [array.shape for array in (*call.after[:1], *block.before[:1])]
    if len(shapes) < 2 or shapes[0] != shapes[1] or len(shapes[0]) != 3 or not call.before:
        return False
    if not any(array.ndim == 2 for array in by_path(call.module.parameters()).values()):
        return False
    beside = [other for other in seen if other is not call and other.parent is block and other.before]
    return all(other.before[0] is not call.before[0] for other in beside)


def _join(model: nn.Module, branch: str, blocks: list[str]) -> None:
    modules = dict(model.named_modules())
    for name in blocks:
        stream: dict[str, mx.array] = {}
        reroute(modules[name], _entering(stream))
        reroute(modules[f"{name}.{branch}"], _leaving(stream))


def _entering(stream: dict[str, mx.array]) -> Callable:
    def call(own, came, *args, **kwargs):
        stream["came"] = came
        return own(came, *args, **kwargs)

    return call


def _leaving(stream: dict[str, mx.array]) -> Callable:
    def call(own, *args, **kwargs):
        came = stream["came"]
        return changed(
            own(*args, **kwargs), lambda out: out + came.astype(out.dtype) if out.shape == came.shape else out
        )

    return call
