"""Small reversible changes inside any model, one thing at a time; none needs to know its code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import mlx.core as mx
import mlx.nn as nn

from mlxstories.ladder.bench.arrays import changed, full_precision, is_pattern, put
from mlxstories.ladder.exchange.inside_attention import for_attention
from mlxstories.ladder.exchange.inside_modules import for_modules
from mlxstories.ladder.exchange.intervention import Intervention, Site, is_numbered, site_of
from mlxstories.ladder.exchange.reference import begins_as_gpt_2, table_of
from mlxstories.ladder.patches import Patches, reroute
from mlxstories.trees import by_path

_OFF = 2.0  # factor on a first scale from which it is no standard one
_FAR_OFF = 8.0  # from which no recipe begins a layer there


def for_model(model: nn.Module, vocab: int) -> list[Intervention]:
    """The changes that make a difference in this model of ``vocab`` ids."""
    return [
        *for_attention(),
        *_first_scales(model),
        *drawn_matrices(model),
        *for_modules(model),
        *_blocks(model),
        *_positions(model, vocab),
        _stops(),
        *_precision(model),
        Intervention("dropout off", "model", model=_train_mode_off, wanted=True),
    ]


# --- first weights -----------------------------------------------------------------------------------


def _first_scales(model: nn.Module) -> list[Intervention]:
    """The standard deviation of a group's matrices set to that of the library's layers; those that begin as GPT-2's
    are as usual."""
    arrays = by_path(model.parameters())
    off = {n: f for n, f in _factors(model).items() if max(f, 1 / f) > _OFF}
    return _rescaled({n: f for n, f in off.items() if not begins_as_gpt_2(arrays[n])})


def wide_layers(model: nn.Module) -> list[Intervention]:
    """The same of linear layers alone that begin far too large, for which a better step makes up. Tables are often
    drawn with a deviation of 1, and train."""
    layers = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    return _rescaled({n: f for n, f in _factors(model).items() if n in layers and 1 / f > _FAR_OFF})


def drawn_matrices(model: nn.Module) -> list[Intervention]:
    """Matrices that begin at 0, drawn as the library's layers are. Several in a row, such as a head and the ends of the
    branches before it, wake up slowly; if only the ends begin at 0, that is a choice, and costs little."""
    usual = _usual(model)
    matrices = by_path(model.trainable_parameters())
    empty = [name for name in usual if not bool(mx.any(matrices[name]))]
    if not empty:
        return []

    def change(fresh: nn.Module) -> None:
        arrays = by_path(fresh.parameters())
        put(
            fresh,
            {n: (usual[n] * mx.random.normal(arrays[n].shape)).astype(arrays[n].dtype) for n in empty},
        )

    site = Site(part="model", module=empty[0].rpartition(".")[0])
    name = "matrices that begin at 0 drawn as the library's"
    return [Intervention(name, "model", model=change, redrawn=True, site=site)]


def _factors(model: nn.Module) -> dict[str, float]:
    """For each matrix that does not begin at 0, the library's standard deviation over its own."""
    arrays, usual = by_path(model.trainable_parameters()), _usual(model)
    own = {n: float(arrays[n].astype(mx.float32).std()) for n in usual}
    return {n: usual[n] / own[n] for n in usual if own[n] > 0}


def _usual(model: nn.Module) -> dict[str, float]:
    """The library's standard deviation of each matrix."""
    tables = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Embedding)}
    return {
        name: (array.shape[1] * (1 if name in tables else 3)) ** -0.5
        for name, array in by_path(model.trainable_parameters()).items()
        if array.ndim == 2 and mx.issubdtype(array.dtype, mx.floating) and not is_pattern(array)
    }


def _rescaled(factors: dict[str, float]) -> list[Intervention]:
    """One change for each group of matrices of the same name, each multiplied by its factor."""
    groups: dict[str, dict[str, float]] = {}
    for name, factor in factors.items():
        groups.setdefault(name.removesuffix(".weight").rpartition(".")[2], {})[name] = factor

    def multiplied(by: dict[str, float]) -> Callable[[nn.Module], None]:
        def change(fresh: nn.Module) -> None:
            arrays = by_path(fresh.parameters())
            put(fresh, {n: (arrays[n] * factor).astype(arrays[n].dtype) for n, factor in by.items()})

        return change

    return [
        Intervention(
            f"first scale of {group} set to the library's",
            "model",
            model=multiplied(by),
            site=Site(part="model", module=next(iter(by))),
        )
        for group, by in groups.items()
    ]


# --- blocks ------------------------------------------------------------------------------------------


def _blocks(model: nn.Module) -> list[Intervention]:
    names = [n for n, m in model.named_modules() if is_numbered(n) and m.children()]
    names = [n for n in names if not any(n.startswith(f"{other}.") for other in names)]
    found = []
    if names:
        first = next(m for n, m in model.named_modules() if n == names[0])
        site = site_of("model", type(first).__call__, names[0])

        def each(change: Callable[[mx.array, mx.array], mx.array]) -> Callable[[nn.Module], None]:
            def call(own, came, *args, **kwargs):
                return changed(
                    own(came, *args, **kwargs),
                    lambda out: change(came, out) if out.shape == came.shape else out,
                )

            def apply(fresh: nn.Module) -> None:
                for name, module in fresh.named_modules():
                    if name in names:
                        reroute(module, call)

            return apply

        for words, change in (
            ("what comes into each block added to what comes out", lambda x, out: x + out),
            ("what each block adds multiplied by 4", lambda x, out: x + 4 * (out - x)),
            ("what each block adds divided by 4", lambda x, out: x + (out - x) / 4),
        ):
            found.append(Intervention(words, "model", model=each(change), site=site))
    narrowing = [
        n for n, m in model.named_modules() if isinstance(m, nn.Linear) and _wide(m) and m.weight.shape[0] > 1
    ]
    if narrowing:

        def activated(fresh: nn.Module) -> None:
            for name, module in fresh.named_modules():
                if name in narrowing:
                    reroute(module, lambda own, x, **kwargs: own(nn.gelu(x), **kwargs))

        site = Site(part="model", module=narrowing[0])
        found.append(
            Intervention("a GELU before each layer that narrows", "model", model=activated, site=site)
        )
    return found


def _wide(layer: nn.Linear) -> bool:
    out, into = layer.weight.shape
    return into >= 2 * out


# --- positions, gradients, precision -----------------------------------------------------------------


def _positions(model: nn.Module, vocab: int) -> list[Intervention]:
    path = table_of(model, vocab)

    def added(fresh: nn.Module) -> None:
        table = next(m for n, m in fresh.named_modules() if n == path)
        deviation = float(table.weight.astype(mx.float32).std()) or 1.0
        waves = nn.SinusoidalPositionalEncoding(table.weight.shape[1] // 2 * 2, scale=2**0.5 * deviation)

        def call(own, *args, **kwargs):
            out = own(*args, **kwargs)
            places = mx.stop_gradient(waves(mx.arange(out.shape[-2])))
            return out + places if places.shape[-1] == out.shape[-1] else out

        reroute(table, call)

    @contextmanager
    def unrotated() -> Iterator[None]:
        with Patches() as patches:
            patches.replace(mx.fast, "rope", lambda x, *_, **__: x)
            patches.replace(nn.RoPE, "__call__", lambda self, x, offset=0: x)
            yield

    found = [Intervention("rotations of queries and keys removed", "model", around=unrotated)]
    if path is not None:
        site = Site(part="model", module=path)
        found.append(Intervention("positions added to the embedding", "model", model=added, site=site))
    return found


def _stops() -> Intervention:
    @contextmanager
    def flowing() -> Iterator[None]:
        with Patches() as patches:
            patches.replace(mx, "stop_gradient", lambda x, *_, **__: x)
            yield

    return Intervention("mx.stop_gradient without effect", "model", around=flowing)


def _precision(model: nn.Module) -> list[Intervention]:
    whole = Intervention("weights in float32", "model", model=lambda m: m.set_dtype(mx.float32), wanted=True)
    return [] if full_precision(model.parameters()) else [whole]


def _train_mode_off(model: nn.Module) -> None:
    """Evaluation mode throughout: whatever heeds the mode leaves nothing out."""
    for module in model.modules():
        module.train = lambda mode=True, module=module: module
        module._training = False
