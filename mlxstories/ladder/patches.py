"""Functions, and the calls of one module, replaced for a while and always restored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.optimizers import MultiOptimizer, Optimizer

_MISSING = object()


class Patches:
    """Replacements of attributes that are in place only inside ``with``; it can be entered again and again."""

    def __init__(self) -> None:
        self._wanted: list[tuple[Any, str, Any]] = []
        self._kept: list[tuple[Any, str, Any]] = []
        self._inside = False

    def replace(self, owner: Any, name: str, value: Any) -> None:
        """Have ``owner.name`` be ``value`` from the next ``with`` on, or at once inside of one."""
        self._wanted.append((owner, name, value))
        if self._inside:
            self._put(owner, name, value)

    def _put(self, owner: Any, name: str, value: Any) -> None:
        # What a class inherits is not its own, and is deleted again rather than set.
        self._kept.append((owner, name, vars(owner).get(name, _MISSING)))
        setattr(owner, name, value)

    def __enter__(self) -> Patches:
        self._inside = True
        for patch in self._wanted:
            self._put(*patch)
        return self

    def __exit__(self, *_) -> None:
        self._inside = False
        while self._kept:
            owner, name, value = self._kept.pop()
            if value is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, value)


def around_updates(patches: Patches, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Have ``around(apply_gradients)`` stand in the place of that of all MLX's optimisers."""
    for kind in (Optimizer, MultiOptimizer):  # which has one of its own
        patches.replace(kind, "apply_gradients", around(kind.apply_gradients))


def reroute(module: nn.Module, call: Callable[..., Any]) -> None:
    """Have one object's calls go through ``call(own, *args, **kwargs)``, where ``own`` is its original call. Python
    looks calls up on the class, so the object gets a class of its own."""
    kind = type(module)

    def rerouted_call(self, *args, **kwargs):
        return call(partial(kind.__call__, self), *args, **kwargs)

    names = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    module.__class__ = type(kind.__name__, (kind,), {**names, "__call__": rerouted_call})


def tokens_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> mx.array:
    """The tokens that a model is called with: the first argument, or the first array among the keywords."""
    name = _of_tokens(kwargs)
    return args[0] if args or name is None else kwargs[name]


def _of_tokens(kwargs: dict[str, Any]) -> str | None:
    """The name of the first array."""
    return next((name for name, value in kwargs.items() if isinstance(value, mx.array)), None)


def with_tokens(call: Callable[..., Any]) -> Callable[..., Any]:
    """Have ``call(own, tokens, *args, **kwargs)`` get the `tokens_of` a model's call, even if they were a keyword."""

    def named(own, *args, **kwargs):
        if args or (name := _of_tokens(kwargs)) is None:
            return call(own, *args, **kwargs)
        tokens = kwargs.pop(name)
        return call(lambda tokens, **others: own(**{name: tokens}, **others), tokens, **kwargs)

    return named


@contextmanager
def rerouted(module: nn.Module, call: Callable[..., Any]) -> Iterator[None]:
    """`reroute`, for a while."""
    kind = type(module)
    reroute(module, call)
    try:
        yield
    finally:
        module.__class__ = kind
