"""Parts of a model that have a plain counterpart, recognised by what they do: attention, feed-forward, block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.samples import sample
from mlxstories.ladder.exchange.intervention import Intervention, is_numbered, is_own, site_of
from mlxstories.ladder.exchange.reference import PlainAttention, PlainBlock, PlainFeedForward, Shape
from mlxstories.ladder.patches import Patches
from mlxstories.ladder.where.calls import Call, calls
from mlxstories.trees import by_path

_SAME = 1e-4  # relative difference by rounding

_PLAIN: dict[str, Callable[[Shape], nn.Module]] = {
    "attention": PlainAttention,
    "feed-forward layer": PlainFeedForward,
    "block": PlainBlock,
}


def for_parts(bench: Bench, shape: Shape) -> list[Intervention]:
    """For each of the model's own classes that has one, its plain counterpart in every place where it stands.

    What mixes positions in a model without any softmax, as a recurrent layer does, has none: it is of another kind,
    and no fault.
    """
    model = bench.noisy()
    model.eval()
    names = {id(module): name for name, module in model.named_modules() if name}
    ids = sample(bench).rows(slice(0, 2)).device().inputs
    seen = [c for c in calls(model, ids) if id(c.module) in names and _keeps_shape(c) and is_own(c.module)]
    firsts = {type(call.module): call for call in reversed(seen)}
    roles = {cls: _role(call) for cls, call in firsts.items()}
    attends = _attends(model, ids)
    found = []
    for cls, call in firsts.items():
        kind = _kind(roles[cls], {roles[type(c.module)] for c in seen if call in c.within()})
        paths = list(dict.fromkeys(names[id(c.module)] for c in seen if type(c.module) is cls))
        if kind is None or not (attends or kind == "feed-forward layer"):
            continue
        if kind == "block" and not all(is_numbered(path) for path in paths):
            continue  # the whole stack, say
        like = replace(shape, width=call.args[0].shape[-1])
        change = partial(_exchange, paths=paths, make=partial(_PLAIN[kind], like))
        site = site_of("model", cls.__call__, paths[0])
        name = f"a plain {kind} for {cls.__name__}"
        found.append(Intervention(name, "model", model=change, redrawn=True, site=site))
    return found


def _kind(role: str | None, inner: set[str | None]) -> str | None:
    if role == "mixing":
        return "block" if inner & {"mixing", "feed-forward layer", "norm"} else "attention"
    return role if role == "feed-forward layer" and role not in inner else None  # the smallest is exchanged


def _keeps_shape(call: Call) -> bool:
    """Whether it makes [B, T, D] from [B, T, D], and nothing else."""
    given = call.args[0] if call.args else None
    return (
        isinstance(given, mx.array)
        and given.ndim == 3
        and mx.issubdtype(given.dtype, mx.floating)
        and len(call.after) == 1
        and call.after[0].shape == given.shape
    )


def _role(call: Call) -> str | None:
    """What a module is, found by calling it again."""
    given = call.args[0].astype(mx.float32)
    noise = mx.array(np.random.default_rng(5).standard_normal(given.shape).astype(np.float32))
    first = mx.arange(given.shape[1])[None, :, None] == 0

    def answer(x: mx.array) -> mx.array:
        return call.module(x.astype(call.args[0].dtype), *call.args[1:], **call.kwargs).astype(mx.float32)

    plain = answer(given)
    if _apart(answer(mx.where(first, noise, given))[:, 1:], plain[:, 1:]) > _SAME:
        return "mixing"
    matrices = sum(array.ndim == 2 for array in by_path(call.module.parameters()).values())
    return "norm" if not matrices else "feed-forward layer" if matrices > 1 else None


def _apart(one: mx.array, other: mx.array) -> float:
    return float(mx.abs(one - other).max() / mx.maximum(mx.abs(other).max(), 1e-12)) if one.size else 0.0


def _attends(model: nn.Module, ids: mx.array) -> bool:
    """Whether a forward pass takes a softmax before its logits."""
    taken: list[int] = []
    softmax, attend = mx.softmax, mx.fast.scaled_dot_product_attention
    with Patches() as patches:
        patches.replace(mx, "softmax", lambda *a, **k: taken.append(1) or softmax(*a, **k))
        patches.replace(
            mx.fast, "scaled_dot_product_attention", lambda *a, **k: taken.append(1) or attend(*a, **k)
        )
        model(ids)
    return bool(taken)


def _exchange(model: nn.Module, paths: list[str], make: Callable[[], nn.Module]) -> None:
    for path in paths:
        holder: Any = model
        *way, last = path.split(".")
        for step in way:
            holder = holder[int(step)] if isinstance(holder, list) else holder[step]
        if isinstance(holder, list):
            holder[int(last)] = make()
        else:
            holder[last] = make()
