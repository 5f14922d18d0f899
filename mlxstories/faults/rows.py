"""Faults by which a row of the batch sees other rows."""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn

from mlxstories.faults.fault import Faults
from mlxstories.faults.leaks import ByHand, after_block, each_attention
from mlxstories.faults.model import rebuilt
from mlxstories.model.layers import Attention

FAULTS = Faults("model")


class BatchNorm(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.BatchNorm(dim, track_running_stats=False)

    def __call__(self, x):
        return self.norm(x)


class BatchMean(nn.Module):
    """Takes the mean over the batch away."""

    def __init__(self, dim: int):
        super().__init__()

    def __call__(self, x):
        return x - 0.5 * x.mean(axis=0, keepdims=True)


class HeadsReshaped(ByHand):
    """Splits heads by a reshape to [B, H, T, D / H] with the batch and head axes exchanged."""

    def mix(self, queries, keys, values):
        def muddle(x):
            return x.reshape(x.shape[1], x.shape[0], *x.shape[2:]).swapaxes(0, 1)

        scale = 1 / math.sqrt(queries.shape[-1])
        return mx.fast.scaled_dot_product_attention(
            muddle(queries), muddle(keys), muddle(values), scale=scale, mask="causal"
        )


class OverTheBatch(Attention):
    """Written for [T, B, D], given [B, T, D]: rows attend to earlier rows."""

    def __call__(self, x, mask, layer, cache):
        if cache is not None:
            return super().__call__(x, mask, layer, cache)
        return super().__call__(x.swapaxes(0, 1), "causal", layer, None).swapaxes(0, 1)


FAULTS.add("batch-norm", "batch-leak", "a batch norm stands in for the layer norm", after_block(BatchNorm))
FAULTS.add("batch-mean", "batch-leak", "the mean over the batch is subtracted", after_block(BatchMean, -1))
FAULTS.add(
    "heads-reshaped",
    "batch-leak",
    "a reshape without a transpose mixes rows and heads",
    rebuilt(lambda model, config: each_attention(model, config, HeadsReshaped)),
)
FAULTS.add(
    "attention-over-batch",
    "batch-leak",
    "the last attention takes the batch for time",
    rebuilt(lambda model, config: each_attention(model, config, OverTheBatch, slice(1, None))),
)
