"""How single modules answer inputs of our choice: how their output grows with the input, and whether they are
linear."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.model.forward_pass import forward_pass, rms
from mlxstories.trees import by_path

_LOUDER = 4.0  # times the input of a norm


@measurement
def degrees(bench: Bench) -> dict[str, float]:
    """For each module whose parameters are all vectors, as a norm's are: the power with which its output grows with its
    input, which is 0 for a norm, 1 for a scale and 2 for one that squares."""
    found = {}
    for path, call in forward_pass(bench).calls.items():
        weights = tree_flatten(call.module.parameters())
        vectors = bool(weights) and all(a.shape == call.given.shape[-1:] for _, a in weights)
        if vectors and call.given.shape == call.made.shape and rms(call.given) > 0:
            quiet, loud = (_answer(call.module, call.given * scale) for scale in (1.0, _LOUDER))
            if quiet is not None and loud is not None and rms(quiet) > 0:
                found[path] = float(np.log(max(rms(loud), 1e-30) / rms(quiet)) / np.log(_LOUDER))
    return found


@measurement
def linear_pairs(bench: Bench) -> list[str]:
    """Paths of modules that have two or more matrices, none narrower than what goes in and out, and are linear all the
    same: the sum of two inputs gives the sum of their outputs, also in what they add to their input."""
    found: list[str] = []
    for path, call in forward_pass(bench).calls.items():
        shapes = [a.shape for a in by_path(call.module.parameters()).values() if a.ndim >= 2]
        given, made = call.given, call.made
        if len(shapes) < 2 or not mx.issubdtype(given.dtype, mx.floating) or given.ndim != 3 or not made.ndim:
            continue
        ends = min(given.shape[-1], made.shape[-1])
        if any(len(shape) > 2 or min(shape) < ends for shape in shapes):
            continue
        if _is_affine(lambda x, module=call.module: _answer(module, x), given):
            found = [p for p in found if not p.startswith(path + ".")] + [path]
    return found


def _answer(module: nn.Module, x: mx.array) -> mx.array | None:
    try:
        out = module(x)
        mx.eval(out)
    except Exception:
        return None
    return out if isinstance(out, mx.array) else None


def _is_affine(function: Callable[[mx.array], mx.array | None], x: mx.array) -> bool:
    x = (3 / max(rms(x), 1e-30)) * x  # loud enough for an activation to bend
    other = 2 * mx.roll(x, 1, axis=0) - mx.roll(x, 3, axis=-1)
    whole, one, two, none = (function(a) for a in (x + other, x, other, mx.zeros_like(x)))
    if whole is None or one is None or two is None or none is None:
        return False
    size = rms(whole - none)
    if whole.shape == x.shape:  # small weights add so little to a residual stream that it hides them
        size = min(size, rms(whole - none - x - other))
    return size > 0 and rms(whole + none - one - two) < 1e-3 * size
