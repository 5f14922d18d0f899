"""Faults by which the same row does not always give the same logits, or a model is more or less than its parameters."""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn

from mlxstories.faults.fault import Faults, change
from mlxstories.faults.leaks import ByHand, after_block, each_attention
from mlxstories.faults.model import rebuilt
from mlxstories.model import Transformer

FAULTS = Faults("model")


class LiveDropout(nn.Module):
    """Dropout by a plain function, which does not know whether the model is being trained (nanoGPT pull 240)."""

    def __init__(self, dim: int):
        super().__init__()

    def __call__(self, x):
        return mx.where(mx.random.bernoulli(0.9, x.shape), x / 0.9, 0)


class PositionsOfRows(Transformer):
    """Learned positions that count rows, as in code for [T, B]."""

    def __init__(self, config):
        super().__init__(config)
        self.place = nn.Embedding(config.context, config.dim)

    def embedded(self, tokens, positions):
        return super().embedded(tokens, positions) + self.place(mx.arange(tokens.shape[0]))[:, None]


class PositionsFromTheEnd(Transformer):
    """Learned positions that count from the end of the row."""

    def __init__(self, config):
        super().__init__(config)
        self.place = nn.Embedding(config.context, config.dim)

    def embedded(self, tokens, positions):
        return super().embedded(tokens, positions) + self.place(mx.arange(tokens.shape[1] - 1, -1, -1))


class OutOfSight(nn.Module):
    """Holds its layer in an object that is no module."""

    class Holder:
        def __init__(self, dim: int):
            self.project = nn.Linear(dim, dim, bias=False)

    def __init__(self, dim: int):
        super().__init__()
        self._holder = self.Holder(dim)

    def __call__(self, x):
        return x + self._holder.project(x)


class MaskAsParameter(ByHand):
    """Keeps its boolean mask in a public attribute: a parameter, which the first update makes additive (MLX issue
    141)."""

    def __init__(self, config):
        super().__init__(config)
        self.mask = mx.tri(config.context, dtype=mx.bool_)

    def mix(self, queries, keys, values):
        length = queries.shape[2]
        return mx.fast.scaled_dot_product_attention(
            queries,
            keys,
            values,
            scale=1 / math.sqrt(queries.shape[-1]),
            mask=self.mask[:length, :length],
        )


class DistanceRewarded(ByHand):
    """A linear bias of the wrong sign: the farther a token, the more attention it gets."""

    def weights(self, scores, past):
        place = mx.arange(scores.shape[-1])
        scores = scores + (place[:, None] - place)
        return mx.softmax(mx.where(past > 0, scores, -mx.inf), axis=-1)


class AlibiUpsideDown(ByHand):
    """ALiBi (Press et al. 2022) of the wrong sign, each head with its own slope."""

    def weights(self, scores, past):
        heads, place = scores.shape[1], mx.arange(scores.shape[-1])
        slopes = 2 ** (-8 * mx.arange(1, heads + 1) / heads)[:, None, None]
        scores = scores + slopes * (place[:, None] - place)
        return mx.softmax(mx.where(past > 0, scores, -mx.inf), axis=-1)


class DrownedScores(ByHand):
    """A mask of the other convention: -1e9 for what may be seen, twice that for what may not."""

    def weights(self, scores, past):
        return mx.softmax(scores - 1e9 - 1e9 * (1 - past), axis=-1)


class WithinBlocks(ByHand):
    """Attention within blocks of 8, each layer the same."""

    def weights(self, scores, past):
        block = mx.arange(scores.shape[-1]) // 8
        return mx.softmax(mx.where((past > 0) & (block[:, None] == block), scores, -mx.inf), axis=-1)


FAULTS.add(
    "dropout-in-every-mode",
    "not-repeatable",
    "dropout by a function that does not heed model.eval()",
    after_block(LiveDropout),
)
FAULTS.add(
    "positions-of-rows",
    "batch-leak",
    "positions are counted over the rows of the batch",
    change(build_model=PositionsOfRows),
)
FAULTS.add(
    "positions-from-the-end",
    "length-dependent",
    "positions are counted from the end of the row",
    change(build_model=PositionsFromTheEnd),
)
FAULTS.add(
    "layer-out-of-sight",
    "hidden-parameters",
    "a layer lies in an object that is no nn.Module, where MLX does not see it",
    after_block(OutOfSight),
)
FAULTS.add(
    "mask-as-parameter",
    "buffer-trained",
    "a boolean mask in a public attribute is trained with the weights",
    rebuilt(lambda model, config: each_attention(model, config, MaskAsParameter)),
)
FAULTS.add(
    "distance-rewarded",
    "context-cut",
    "the attention bias grows with the distance, so that near tokens are hidden behind far ones",
    rebuilt(lambda model, config: each_attention(model, config, DistanceRewarded)),
)
FAULTS.add(
    "alibi-upside-down",
    "context-cut",
    "the linear bias of ALiBi has the wrong sign (attention-gym pull 86)",
    rebuilt(lambda model, config: each_attention(model, config, AlibiUpsideDown)),
)
FAULTS.add(
    "attention-in-blocks",
    "context-cut",
    "attention stays within blocks of 8, in every layer the same",
    rebuilt(lambda model, config: each_attention(model, config, WithinBlocks)),
)
FAULTS.add(
    "scores-drowned",
    "without-effect",
    "scores drown in a mask of -1e9: attention is a mean, and queries and keys have no effect",
    rebuilt(lambda model, config: each_attention(model, config, DrownedScores)),
)
