"""Which of a model's arrays are drawn at random: those that differ in a fresh model made after another seed."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.trees import by_path

_ANOTHER = 101  # added to the seed for the other model


@dataclass(frozen=True)
class RandomArrays:
    """Paths of parameters and of `hidden_arrays` that both fresh models have.

    Attributes:
        others: those whose values differ.
        same: those whose values are equal, as a formula or a file gives them.
    """

    others: frozenset[str]
    same: frozenset[str]


@measurement
def random_arrays(bench: Bench) -> RandomArrays | None:
    """Compare two fresh models; None where the subject returns one object, which cannot differ from itself."""
    if bench.hands_out_one_model:
        return None
    one, other = (_arrays(bench.model(bench.seed + seed)) for seed in (0, _ANOTHER))
    same = {name for name in one.keys() & other.keys() if mx.array_equal(one[name], other[name])}
    return RandomArrays(frozenset(one.keys() & other.keys() - same), frozenset(same))


def _arrays(model: nn.Module) -> dict[str, mx.array]:
    return {**by_path(model.parameters()), **hidden_arrays(model)}


def hidden_arrays(value, path: str = "", private: bool = False) -> dict[str, mx.array]:
    """Floating arrays below attributes that begin with an underscore, by path: MLX leaves them out of the
    parameters."""
    if isinstance(value, mx.array):
        return {path: value} if private and value.size > 1 and mx.issubdtype(value.dtype, mx.floating) else {}
    if isinstance(value, dict):
        items = list(value.items())
        if isinstance(value, nn.Module):
            # Plain attributes too: an optimiser never sees what is not in the module's dictionary.
            items += [(k, v) for k, v in vars(value).items() if isinstance(v, (nn.Module, list, tuple))]
    elif isinstance(value, (list, tuple)):
        items = list(enumerate(value))
    else:
        return {}
    found: dict[str, mx.array] = {}
    for key, item in items:
        name = f"{path}.{key}" if path else str(key)
        found |= hidden_arrays(item, name, private or str(key).startswith("_"))
    return found
