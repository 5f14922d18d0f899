"""Models that return logits for the last place only unless they are given targets, as nanoGPT's does."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlxstories.ladder.bench.arrays import first_of
from mlxstories.ladder.patches import reroute


def logits_everywhere(model: nn.Module, ids: mx.array) -> nn.Module:
    """``model`` itself where it gives logits at every place of ids [B, T]; else, if it does so with targets beside
    them, the same model, which hands over the ids as targets.

    Source: github.com/karpathy/nanoGPT, model.py, "inference-time mini-optimization".
    """
    if _places(model, ids) != 1 or ids.shape[1] == 1 or _places(model, ids, ids) != ids.shape[1]:
        return model

    def call(own, *args, **kwargs):
        alone = len(args) == 1 and not kwargs and isinstance(args[0], mx.array)
        return own(*args, *(args if alone else ()), **kwargs)

    reroute(model, call)
    return model


def _places(model: nn.Module, *args: Any) -> int:
    """Places at which it gives logits; 0 where it gives none."""
    out = None
    with suppress(Exception):  # it may want something else, which is for others to say
        out = model(*args)
    out = first_of(out)
    return out.shape[1] if isinstance(out, mx.array) and out.ndim == 3 else 0
