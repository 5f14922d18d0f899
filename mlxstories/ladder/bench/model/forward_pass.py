"""One forward pass of the untrained model, watched from inside: what its modules take and give, and its attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.ladder.bench.arrays import HALF
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.model.consistency import short
from mlxstories.ladder.bench.model.distance import HIDDEN, Rise, rises
from mlxstories.ladder.bench.samples import sample
from mlxstories.ladder.patches import Patches, rerouted

ROWS, _LENGTH = 8, 48
_DROWNED = -1e6  # from which on float32 rounds scores by a tenth


@dataclass
class ModuleCall:
    """What a module was called with for the first time, one array in and one out."""

    module: nn.Module
    given: mx.array
    made: mx.array


@dataclass
class ForwardPass:
    """The pass.

    Attributes:
        calls: the first call of each module by its path.
        scores: mean standard deviation, over rows of the batch, of attention scores at one place of the score matrix,
            largest over the softmaxes; what positions alone add is the same in every row.
        attention: path of the innermost module at work there, empty for the model itself.
        rises: of the scores with the distance, for each head of each softmax.
        drowned: path of the innermost module at work where all scores of some query were masked by a finite number, and
            lost in rounding; None where there is none.
        promoted: paths of modules with weights of 16 bits that were given float32.
        halves: modules with weights of 16 bits that were called.
        at_work: paths of the modules that are being called, the innermost last.
    """

    calls: dict[str, ModuleCall] = field(default_factory=dict)
    scores: float = 0.0
    attention: str = ""
    rises: list[Rise] = field(default_factory=list)
    drowned: str | None = None
    promoted: list[str] = field(default_factory=list)
    halves: int = 0
    at_work: list[str] = field(default_factory=list)

    def attend(self, scores: mx.array, added: Any) -> None:
        """Take in the scores of a softmax, in the module that is at work."""
        at_work = self.at_work[-1] if self.at_work else ""
        self.rises += rises(scores + added)
        highest = (scores + added).max(axis=-1)
        if bool(mx.any((highest < _DROWNED) & (highest > -mx.inf))):
            self.drowned = at_work
        spread = _spread(scores)
        if spread > self.scores:
            self.scores, self.attention = spread, at_work


@measurement
def forward_pass(bench: Bench) -> ForwardPass:
    """Show the fresh model a few rows in evaluation mode."""
    tokens = short(bench, np.arange(ROWS) % sample(bench).shape[0], _LENGTH).inputs
    model, found = bench.model(), ForwardPass()
    model.eval()
    with ExitStack() as watching:
        watching.enter_context(_watched_modules(model, found))
        watching.enter_context(watched_scores(found.attend))
        bench.logits(model, np.maximum(tokens, 0))
    return found


@contextmanager
def _watched_modules(model: nn.Module, found: ForwardPass) -> Iterator[None]:
    """Every module below the model notes its first call."""
    paths = {id(module): (path, module) for path, module in model.named_modules() if path}
    with ExitStack() as watching:
        for path, module in paths.values():
            watching.enter_context(rerouted(module, _noting(path, module, found)))
        yield


def _noting(path: str, module: nn.Module, found: ForwardPass) -> Callable[..., Any]:
    def call(own, *args, **kwargs):
        found.at_work.append(path)
        made = own(*args, **kwargs)
        found.at_work.pop()
        alone = len(args) == 1 and not kwargs and isinstance(made, mx.array)
        if alone and isinstance(args[0], mx.array) and path not in found.calls:
            found.calls[path] = ModuleCall(module, args[0], made)
            _note_precision(module, path, args[0], found)
        return made

    return call


def _note_precision(module: nn.Module, path: str, given: mx.array, found: ForwardPass) -> None:
    weight = module.get("weight")
    if not isinstance(weight, mx.array) or weight.ndim < 2 or weight.dtype not in HALF:
        return
    if mx.issubdtype(given.dtype, mx.floating):
        found.halves += 1
        found.promoted += [path] * (given.dtype == mx.float32)


@contextmanager
def watched_scores(see: Callable[[mx.array, Any], None]) -> Iterator[None]:
    """Show ``see`` the scores [B, (H,) T, T] on their way into a softmax over keys or into MLX's own attention, and
    what is added to them there."""
    softmax, attend = mx.softmax, mx.fast.scaled_dot_product_attention

    def watched_softmax(scores, *args, **kwargs):
        if isinstance(scores, mx.array) and scores.ndim >= 3 and scores.shape[-1] == scores.shape[-2] > 2:
            see(scores, 0)
        return softmax(scores, *args, **kwargs)

    def watched_attend(q, k, v, *args, **kwargs):
        if q.ndim == 4 and q.shape[2] == k.shape[2] > 2:
            times = q.shape[1] // k.shape[1]
            keys = mx.repeat(k, times, axis=1) if times > 1 else k
            scores = (
                q.astype(mx.float32) @ keys.astype(mx.float32).swapaxes(-1, -2) * kwargs.get("scale", 1.0)
            )
            mask = kwargs.get("mask")
            see(scores, mask if isinstance(mask, mx.array) and mx.issubdtype(mask.dtype, mx.floating) else 0)
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
