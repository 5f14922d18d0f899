"""One forward pass of the untrained model, watched from inside: what its modules take and give, and its attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from mlxstories.ladder.bench.arrays import HALF
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.material import sample
from mlxstories.ladder.bench.model.distance import HIDDEN, Rise, rises
from mlxstories.ladder.patches import Patches, rerouted

_ROWS, _LENGTH = 8, 48
_LOUDER = 4.0  # times the input of a norm


@dataclass
class Seen:
    """What a module was called with for the first time, one array in and one out."""

    module: nn.Module
    given: mx.array
    made: mx.array


@dataclass
class Inside:
    """The pass.

    Attributes:
        calls: the first call of each module by its path.
        scores: mean standard deviation, over rows of the batch, of attention scores at one place of the score matrix,
            largest over the softmaxes; what positions alone add is the same in every row.
        attention: path of the innermost module at work there, empty for the model itself.
        rises: of the scores with the distance, for each head of each softmax.
        promoted: paths of modules with weights of 16 bits that were handed float32.
        halves: modules with weights of 16 bits that were called.
        at_work: paths of the modules that are being called, the innermost last.
    """

    calls: dict[str, Seen] = field(default_factory=dict)
    scores: float = 0.0
    attention: str = ""
    rises: list[Rise] = field(default_factory=list)
    promoted: list[str] = field(default_factory=list)
    halves: int = 0
    at_work: list[str] = field(default_factory=list)

    def attend(self, spread: float) -> None:
        """Scores of this spread were seen, in the module that is at work."""
        if spread > self.scores:
            self.scores, self.attention = spread, self.at_work[-1] if self.at_work else ""


@measurement
def inside(bench: Bench) -> Inside:
    """Show the fresh model a few rows in evaluation mode."""
    rows = sample(bench)
    tokens = rows.rows(np.arange(_ROWS) % rows.shape[0]).cut(_LENGTH).inputs
    model, found = bench.model(), Inside()
    model.eval()
    with ExitStack() as watching:
        watching.enter_context(_watched_modules(model, found))
        watching.enter_context(_watched_attention(found))
        bench.logits(model, np.maximum(tokens, 0))
    return found


@contextmanager
def _watched_modules(model: nn.Module, found: Inside) -> Iterator[None]:
    """Every module below the model notes its first call."""
    paths = {id(module): (path, module) for path, module in model.named_modules() if path}
    with ExitStack() as watching:
        for path, module in paths.values():
            watching.enter_context(rerouted(module, _noting(path, module, found)))
        yield


def _noting(path: str, module: nn.Module, found: Inside) -> Callable[..., Any]:
    def call(own, *args, **kwargs):
        found.at_work.append(path)
        made = own(*args, **kwargs)
        found.at_work.pop()
        alone = len(args) == 1 and not kwargs and isinstance(made, mx.array)
        if alone and isinstance(args[0], mx.array) and path not in found.calls:
            found.calls[path] = Seen(module, args[0], made)
            _note_precision(module, path, args[0], found)
        return made

    return call


def _note_precision(module: nn.Module, path: str, given: mx.array, found: Inside) -> None:
    weight = module.get("weight")
    if not isinstance(weight, mx.array) or weight.ndim < 2 or weight.dtype not in HALF:
        return
    if mx.issubdtype(given.dtype, mx.floating):
        found.halves += 1
        found.promoted += [path] * (given.dtype == mx.float32)


@contextmanager
def _watched_attention(found: Inside) -> Iterator[None]:
    """Scores on their way into a softmax over keys, or into MLX's own attention."""
    softmax, attend = mx.softmax, mx.fast.scaled_dot_product_attention

    def watched_softmax(scores, *args, **kwargs):
        if isinstance(scores, mx.array) and scores.ndim >= 3 and scores.shape[-1] == scores.shape[-2] > 2:
            found.attend(_spread(scores))
            found.rises += rises(scores)
        return softmax(scores, *args, **kwargs)

    def watched_attend(q, k, v, *args, **kwargs):
        if q.ndim == 4 and q.shape[2] == k.shape[2] > 2:
            times = q.shape[1] // k.shape[1]
            keys = mx.repeat(k, times, axis=1) if times > 1 else k
            scores = (
                q.astype(mx.float32) @ keys.astype(mx.float32).swapaxes(-1, -2) * kwargs.get("scale", 1.0)
            )
            found.attend(_spread(scores))
            mask = kwargs.get("mask")
            added = mask if isinstance(mask, mx.array) and mx.issubdtype(mask.dtype, mx.floating) else 0
            found.rises += rises(scores + added)
        return attend(q, k, v, *args, **kwargs)

    with Patches() as patches:
        patches.replace(mx, "softmax", watched_softmax)
        patches.replace(mx.fast, "scaled_dot_product_attention", watched_attend)
        yield


def _spread(scores: mx.array) -> float:
    """Standard deviation over the batch at each place on and below the diagonal, mean over those that are seen."""
    values = np.array(scores.astype(mx.float32))
    values = values.reshape(values.shape[0], -1, *values.shape[-2:])
    seen = np.tril(np.ones(values.shape[-2:], bool)) & (values > HIDDEN).all((0, 1))
    if values.shape[0] < 2 or not seen.any():
        return 0.0
    spread = float(values[..., seen].std(0).mean())
    return spread if np.isfinite(spread) else 0.0


def rms(array: mx.array) -> float:
    """Root mean square."""
    return float(mx.sqrt(array.astype(mx.float32).square().mean()))


@measurement
def degrees(bench: Bench) -> dict[str, float]:
    """Of each module with vectors for parameters alone, as norms have them: the power with which its output grows
    with its input: 0 for a norm, 1 for a scale, 2 for one that squares."""
    found = {}
    for path, call in inside(bench).calls.items():
        weights = tree_flatten(call.module.parameters())
        vectors = bool(weights) and all(a.ndim == 1 and a.size == call.given.shape[-1] for _, a in weights)
        if vectors and call.given.shape == call.made.shape and rms(call.given) > 0:
            quiet, loud = (_answer(call.module, call.given * scale) for scale in (1.0, _LOUDER))
            if quiet is not None and loud is not None and rms(quiet) > 0:
                found[path] = float(np.log(max(rms(loud), 1e-30) / rms(quiet)) / np.log(_LOUDER))
    return found


@measurement
def linear_pairs(bench: Bench) -> list[str]:
    """Paths of modules with two or more matrices, none narrower than what goes in and out, that are linear all the
    same, also in what they add to their input: the sum of two inputs gives the sum of their outputs."""
    found: list[str] = []
    for path, call in inside(bench).calls.items():
        shapes = [a.shape for _, a in tree_flatten(call.module.parameters()) if a.ndim >= 2]
        given, made = call.given, call.made
        if len(shapes) < 2 or not mx.issubdtype(given.dtype, mx.floating) or given.ndim != 3:
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
    if whole.shape == x.shape:  # a residual stream may drown what small weights add to it
        size = min(size, rms(whole - none - x - other))
    return size > 0 and rms(whole + none - one - two) < 1e-3 * size


@dataclass(frozen=True)
class Start:
    """How large what enters the first block is, beside what the largest of the blocks adds to it.

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


def _of_blocks(calls: dict[str, Seen], depth: int) -> dict[str, Seen]:
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
    return any(a.ndim > 1 for _, a in tree_flatten(module.parameters()))


@measurement
def stream_start(bench: Bench) -> Start | None:
    """Blocks are modules of a list that take and give the same shape; where they take more than the stream, their
    branches are what within them does. None where there are none."""
    blocks = _of_blocks(inside(bench).calls, 1)
    seen = blocks or _of_blocks(inside(bench).calls, 2)
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
class Told:
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
def told_by_tokens(bench: Bench) -> Told | None:
    """None where there are no numbered modules, or too few rows differ."""
    rows = sample(bench).rows(slice(0, _ROWS)).inputs
    seen = {path: call.given for path, call in inside(bench).calls.items()}
    first = next((path for path in seen if _numbered(path) and _stream(seen[path])), None)
    if first is None or len(np.unique(rows, axis=0)) < _ROWS:
        return None
    stream = seen[first].astype(mx.float32)
    whole = float(stream.var(axis=(0, 1)).mean())
    if not whole:
        return None
    looked = (
        path for path, ids in seen.items() if mx.issubdtype(ids.dtype, mx.integer) and len(ids) != _ROWS
    )
    table = next((f"{path}.weight" for path in looked), None)
    return Told(float(stream.var(axis=0).mean()) / whole, first, table)


def _stream(given: mx.array) -> bool:
    return given.ndim == 3 and len(given) == _ROWS and mx.issubdtype(given.dtype, mx.floating)


def _numbered(path: str) -> bool:
    return any(name.isdigit() for name in path.split("."))
