"""Linear layers whose input is exactly another linear layer's output."""

from __future__ import annotations

from contextlib import ExitStack

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.model.consistency import noised, short
from mlxstories.ladder.bench.model.forward_pass import ModuleCall, forward_pass
from mlxstories.ladder.patches import rerouted
from mlxstories.ladder.where.dropped import noisy

_LENGTH = 32  # tokens of a row


@measurement
def linear_chains(bench: Bench) -> list[tuple[str, str]]:
    """Paths of linear layers, each with those that are given its output as the same array. Left out are pairs whose
    middle is narrower than their input and output, as in low-rank layers, and those whose first layer also serves
    others: the values of an mLSTM are made from what its queries and keys see through an activation."""
    layers = {
        path: call for path, call in forward_pass(bench).calls.items() if isinstance(call.module, nn.Linear)
    }
    makers = {id(call.made): (path, call) for path, call in layers.items()}
    pairs = [
        (*makers[id(call.given)], path, call) for path, call in layers.items() if id(call.given) in makers
    ]
    found = [(first, second) for first, one, second, other in pairs if not _narrow(one, other)]
    alone = {
        first: not _serves_others(bench, first, [second for maker, second in found if maker == first])
        for first, _ in found
    }
    return [(first, second) for first, second in found if alone[first]]


def _serves_others(bench: Bench, first: str, seconds: list[str]) -> bool:
    """Whether logits move when this layer's output is changed for everything but the layers that are given it
    directly."""
    tokens = np.maximum(short(bench, slice(2), _LENGTH).inputs, 0)
    model = noised(bench)
    model.eval()
    modules = dict(model.named_modules())
    # the changed array is kept beside the clean one, or another could have its id
    clean: dict[int, tuple[mx.array, mx.array]] = {}

    def change(own, *args, **kwargs):
        made = own(*args, **kwargs)
        changed = noisy(made)
        clean[id(changed)] = changed, made
        return changed

    def undo(own, *args, **kwargs):
        return own(*(clean.get(id(array), (array, array))[1] for array in args), **kwargs)

    bench.seed_all(1)
    before = bench.logits(model, tokens)
    with ExitStack() as changed:
        changed.enter_context(rerouted(modules[first], change))
        for second in seconds:
            changed.enter_context(rerouted(modules[second], undo))
        bench.seed_all(1)
        return not mx.array_equal(before, bench.logits(model, tokens))


def _narrow(one: ModuleCall, other: ModuleCall) -> bool:
    return one.made.shape[-1] < min(one.given.shape[-1], other.made.shape[-1])
