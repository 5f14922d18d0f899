"""MLX's gradients, updates, compiled functions and evaluations, reported to a watch as they happen."""

from __future__ import annotations

import itertools
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn
from mlx.optimizers import Optimizer

from mlxstories.ladder.capture.copies import module_of, scalar
from mlxstories.ladder.patches import Patches, around_updates


class Watcher(Protocol):
    """What the hooks report to; see `mlxstories.ladder.watching.session.Session`."""

    tracing: int
    busy: bool

    def gradient(self, model: nn.Module | None, arguments: Any, loss: Any) -> None: ...
    def update(self, optimizer: Optimizer, gradients: Any) -> None: ...
    def compiled(self, arguments: Any, result: Any) -> None: ...
    def look(self) -> None: ...


def install(patches: Patches, watcher: Watcher) -> None:
    """Have MLX report to the watcher for as long as the patches are in place."""
    _gradients(patches, watcher)
    _updates(patches, watcher)
    evaluate = mx.eval

    def evaluated(*trees):
        evaluate(*trees)
        if not watcher.busy and not watcher.tracing:
            watcher.look()

    patches.replace(mx, "eval", evaluated)


def _gradients(patches: Patches, watcher: Watcher) -> None:
    of_module, of_arrays = nn.value_and_grad, mx.value_and_grad

    def module_gradient(model, fn):
        watcher.busy, busy = True, watcher.busy
        real = of_module(model, fn)  # built on `mx.value_and_grad`, which need not tell it too
        watcher.busy = busy

        def call(*args, **kwargs):
            result = real(*args, **kwargs)
            watcher.gradient(model, [args, kwargs], scalar(result[0]))
            return result

        return call

    def array_gradient(fun, *options, **named):
        real = of_arrays(fun, *options, **named)
        if watcher.busy:
            return real

        def call(*args, **kwargs):
            result = real(*args, **kwargs)
            if (model := module_of(fun, args)) is not None:
                watcher.gradient(model, [args, kwargs], scalar(result[0]))
            return result

        return call

    patches.replace(nn, "value_and_grad", module_gradient)
    patches.replace(nn.utils, "value_and_grad", module_gradient)
    patches.replace(mx, "value_and_grad", array_gradient)


def _updates(patches: Patches, watcher: Watcher) -> None:
    compile_ = mx.compile
    updating: set[int] = set()  # numbers of compiled functions that make an update
    numbers = itertools.count(1)

    def watched(apply):
        def applied(optimizer, gradients, parameters):
            if watcher.tracing:
                updating.add(watcher.tracing)
            watcher.update(optimizer, gradients)
            return apply(optimizer, gradients, parameters)

        return applied

    def compiled(fun, inputs=None, outputs=None, shapeless=False):
        number = next(numbers)

        def traced(*args, **kwargs):
            outer, watcher.tracing = watcher.tracing, number
            try:
                return fun(*args, **kwargs)
            finally:
                watcher.tracing = outer

        real = compile_(traced, inputs, outputs, shapeless)

        def call(*args, **kwargs):
            result = real(*args, **kwargs)
            if number in updating and not watcher.tracing:
                watcher.compiled([args, kwargs], result)
            return result

        return call

    around_updates(patches, watched)
    patches.replace(mx, "compile", compiled)
