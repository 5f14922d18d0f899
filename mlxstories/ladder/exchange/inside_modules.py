"""Modules with a counterpart in the library, norms and dropout: replaced by it, or brought to its initial scale."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlxstories.ladder.bench.model.norms import scale_of, vectors, weight_of
from mlxstories.ladder.exchange.intervention import Intervention, Site, is_own, site_of
from mlxstories.ladder.patches import reroute

_OFF = 4.0  # factor from which a norm's first scale is no usual one
_NOUGHT = 1e-4  # scale from which on down it is none
_LITTLE, _MUCH = 0.01, 0.9  # share that a dropout takes away, at the least and at the most


def for_modules(model: nn.Module) -> list[Intervention]:
    """The changes that make a difference in this model."""
    return [*_norms(model), *first_gains(model), *own_dropouts(model)]


def _site(model: nn.Module, name: str) -> Site:
    kind = next(type(m) for n, m in model.named_modules() if n == name)
    return site_of("model", kind.__call__, name)


# --- norms -------------------------------------------------------------------------------------------


def _norms(model: nn.Module) -> list[Intervention]:
    """Own modules that have only vectors and keep the shape of their input become the library's norm."""
    names = [n for n, m in model.named_modules() if n and is_own(m) and vectors(m)]
    if not names:
        return []

    def change(fresh: nn.Module) -> None:
        for name, module in fresh.named_modules():
            if name in names:
                centred = any("bias" in key for key in module)

                def call(_own, x, *_, module=module, centred=centred):
                    weight, *rest = vectors(module)
                    if centred and rest:
                        return mx.fast.layer_norm(x, weight, rest[0], 1e-5)
                    return mx.fast.rms_norm(x, weight, 1e-5)

                reroute(module, call)

    name = "norms replaced by the library's"
    return [Intervention(name, "model", model=change, site=_site(model, names[0]))]


def first_gains(model: nn.Module) -> list[Intervention]:
    """Norms that at first make their input vanish, or far larger, are given a gain that keeps it at 1."""
    found = {}
    for name, module in model.named_modules():
        scale = scale_of(module)
        if scale is not None and not 1 / _OFF < scale < _OFF:
            found[name] = scale
    if not found:
        return []

    def change(fresh: nn.Module) -> None:
        for name, module in fresh.named_modules():
            if name in found:
                key = weight_of(module)
                weight = module[key]
                module[key] = weight / found[name] if found[name] > _NOUGHT else mx.ones_like(weight)

    name = "the first weights of norms set to keep a scale of 1"
    return [Intervention(name, "model", model=change, site=_site(model, next(iter(found))))]


# --- dropout -----------------------------------------------------------------------------------------


def own_dropouts(model: nn.Module) -> list[Intervention]:
    """Own modules that drop a share of their input in training become the library's dropout of that share."""
    shares = {n: share for n, m in model.named_modules() if n and (share := _dropped(m))}
    if not shares:
        return []

    def change(fresh: nn.Module) -> None:
        for name, module in fresh.named_modules():
            if name in shares:
                reroute(module, _dropping(module, nn.Dropout(shares[name])))

    name = "dropout replaced by the library's"
    return [Intervention(name, "model", model=change, site=_site(model, next(iter(shares))))]


def _dropping(module: nn.Module, dropout: nn.Dropout) -> Callable[..., mx.array]:
    return lambda _own, x, *_, **__: dropout(x) if module.training else x


def _dropped(module: nn.Module) -> float:
    """The share of ones that an own module without arrays sets to 0 in training and not in evaluation; else 0."""
    if not is_own(module) or module.children() or tree_flatten(module.parameters()):
        return 0.0
    ones, was = mx.ones((8, 64, 64)), module.training
    try:
        shares = list(_lost(module, ones))
    except Exception:  # of another kind
        return 0.0
    finally:
        module.train(was)
    return shares[0] if _LITTLE < shares[0] < _MUCH and not shares[1] else 0.0


def _lost(module: nn.Module, ones: mx.array) -> Iterator[float]:
    for training in (True, False):
        module.train(training)
        out = module(ones)
        yield float((out == 0).mean()) if out.shape == ones.shape else 0.0
