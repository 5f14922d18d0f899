"""What can be read from a fresh model without calling it: dropout, tables, adapters, matrices that start equal."""

from __future__ import annotations

import re
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.trees import by_path

_RANK = 64  # of a low-rank pair, at most
_ADAPTERS = ("lora_a", "lora_b")


@measurement
def dropouts(bench: Bench) -> dict[str, float]:
    """The share that each dropout layer drops, by path."""
    return {
        path: 1 - float(module._p_1)
        for path, module in bench.model().named_modules()
        if isinstance(module, nn.Dropout) and hasattr(module, "_p_1")
    }


@measurement
def is_bigram(bench: Bench) -> bool:
    """Whether the model holds only tables in which ids and places are looked up, norms, and at most one layer after
    them, so that nothing in it could look at an earlier token."""
    model = bench.model()
    tables = {path for path, module in model.named_modules() if isinstance(module, nn.Embedding)}
    matrices = [
        name.rpartition(".")[0] for name, array in by_path(model.parameters()).items() if array.ndim > 1
    ]
    return bool(tables) and len([path for path in matrices if path not in tables]) <= 1


@dataclass(frozen=True)
class Adapters:
    """Low-rank pairs beside a layer.

    Attributes:
        pairs: how many there are.
        adapted: trainable weights in the pairs.
        base: trainable weights of the layers that they adapt, and of all else.
        where: the first trainable matrix that a pair adapts; empty where there is none.
    """

    pairs: int
    adapted: int
    base: int
    where: str


@measurement
def adapters(bench: Bench) -> Adapters | None:
    """Pairs called lora_a and lora_b, as in mlx-lm, or pairs of which one factor starts at 0; None without any."""
    trained = by_path(bench.model().trainable_parameters())
    pairs = {name: other for name, array in trained.items() if (other := _partner(name, array, trained))}
    if not pairs:
        return None
    adapting = {*pairs, *pairs.values()}
    parents = {name.rpartition(".")[0] for name in adapting}
    full = [
        n
        for n, a in trained.items()
        if n not in adapting
        and a.ndim == 2
        and min(a.shape) > _RANK // 4
        and any(n.startswith(f"{p}.") for p in parents)
    ]
    sizes = {name: array.size for name, array in trained.items()}
    adapted = sum(sizes[name] for name in adapting)
    return Adapters(len(pairs), adapted, sum(sizes.values()) - adapted, full[0] if full else "")


def _partner(name: str, array: mx.array, trained: dict[str, mx.array]) -> str | None:
    """The other factor, where this array is the factor of a pair that starts at 0."""
    parent, _, leaf = name.rpartition(".")
    if array.ndim != 2 or not 0 < min(array.shape) <= _RANK or bool(mx.any(array != 0)):
        return None
    if leaf == _ADAPTERS[1]:
        other = f"{parent}.{_ADAPTERS[0]}"
        return other if other in trained else None
    rank, holder = min(array.shape), parent if leaf != "weight" else parent.rpartition(".")[0]
    return next(
        (
            n
            for n, a in trained.items()
            if n != name
            and a.ndim == 2
            and n.startswith(f"{holder}.")
            and min(a.shape) == rank < max(a.shape)
            and rank in (a.shape[0], array.shape[0])
            and rank in (a.shape[1], array.shape[1])  # a product has its rank inside; gains by head have none
        ),
        None,
    )


@measurement
def shared_modules(bench: Bench) -> list[list[str]]:
    """Paths of each module with parameters that is one object on several paths."""
    paths: dict[int, list[str]] = {}
    model = bench.model()
    for path, module in model.named_modules():
        if tree_flatten(module.parameters()):
            paths.setdefault(id(module), []).append(path)
    return [sorted(same) for same in paths.values() if len(same) > 1]


@measurement
def repeated_modules(bench: Bench) -> dict[str, list[str]]:
    """Modules that are one object on several paths of a list: the first path, and all of them. On paths of different
    names they are tied on purpose."""
    found = {}
    for paths in shared_modules(bench):
        for kind in {_kind(path) for path in paths}:
            same = [path for path in paths if _kind(path) == kind]
            if len(same) > 1:
                found[same[0]] = same
    return found


def other_names(bench: Bench, name: str) -> list[str]:
    """The other paths of a parameter whose module stands on several: its gradient arrives on only one of them, and an
    update of that one updates all."""
    return [
        f"{other}{name.removeprefix(path)}"
        for paths in shared_modules(bench)
        for path in paths
        if name.startswith(f"{path}.")
        for other in paths
        if other != path
    ]


@measurement
def second_tables(bench: Bench) -> list[tuple[str, str]]:
    """Pairs of trainable matrices with a row for each id that start with the very same numbers, not all of them equal.
    Layers that start alike, as copies or from a formula, are no such pairs: their names differ only in a number."""
    found, known = [], []
    for name, array in by_path(bench.model().trainable_parameters()).items():
        if array.ndim != 2 or not array.size or len(array) < bench.subject.vocab_size:
            continue
        if bool(array.max() == array.min()):
            continue
        itself = other_names(bench, name)
        others = [
            (n, a) for n, a in known if a.shape == array.shape and _kind(n) != _kind(name) and n not in itself
        ]
        same = next((n for n, a in others if bool(mx.array_equal(a, array))), None)
        if same is not None:
            found.append((same, name))
        known.append((name, array))
    return found


def _kind(name: str) -> str:
    return re.sub(r"\d+", "", name)
