"""The forward pass of one token a row, as decoding repeats it."""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn

from mlxstories.backend import kernels
from mlxstories.model.cache import KVCache
from mlxstories.model.layers import EPS, ROPE_BASE
from mlxstories.model.transformer import Transformer


class Decoder:
    """What a `Transformer` says after one further token, in half as many operations.

    A single position is so little arithmetic that the number of operations is what takes time. So the stream is
    [B, D], queries, keys and values come from one product, the feed-forward part's gate and up from another, and
    the angles of the rotation are made once for all layers. The weights are those at the time of making, and
    dropout is off.

    Args:
        model: a decoder.
    """

    def __init__(self, model: Transformer):
        self.model = model
        self.heads_of = [
            _joined(block.attention.query, block.attention.key, block.attention.value)
            for block in model.blocks
        ]
        self.hidden_of = [_joined(*block.feed_forward.widening) for block in model.blocks]
        self.back_of = [(_joined(b.attention.out), _joined(b.feed_forward.down)) for b in model.blocks]
        mx.eval(self.heads_of, self.hidden_of, self.back_of)

    def __call__(self, tokens: mx.array, cache: KVCache) -> mx.array:
        """Logits [B, V] of int tokens [B] that follow those in the cache, which then holds them too."""
        model, tokens = self.model, tokens[:, None]
        index = cache.offset[None, None]
        starts = model.story_starts(tokens, index, cache)
        mask = model.attention_mask(index, starts, cache)
        places = None if starts is None else index - starts
        x = model.embedded(tokens, index if places is None else places)[:, 0]
        turn = None
        if model.config.positions == "rope":
            turn = _angles(cache.offset, model.config.dim // model.config.heads)
        for layer, block in enumerate(model.blocks):
            out, down = self.back_of[layer]
            read = block.mixed(x[:, None], places, layer, cache)[:, 0]
            x = mx.addmm(x, self._attention(read, mask, turn, layer, cache), out)
            widened = block.feed_forward_norm(x) @ self.hidden_of[layer]
            parts = mx.split(widened, widened.shape[1] // model.config.hidden, axis=1)
            x = mx.addmm(x, block.feed_forward.activated(*parts), down)
        cache.offset = cache.offset + 1
        if starts is not None:
            cache.starts = starts
        return model.head(model.norm(x))

    def _attention(self, x, mask, turn, layer: int, cache: KVCache) -> mx.array:
        attention = self.model.blocks[layer].attention
        both = (x @ self.heads_of[layer]).reshape(len(x), 3, attention.heads, 1, -1)
        turned, values = both[:, :2], both[:, 2]
        if attention.qk_norm:
            turned = mx.fast.rms_norm(turned, None, EPS)
        if turn is not None:
            turned = kernels.turned(turned, *turn)
        keys, values = cache.update(layer, turned[:, 1], values)
        mixed = kernels.attention(turned[:, 0], keys, values, 1 / math.sqrt(keys.shape[-1]), mask)
        return mixed.reshape(x.shape)


def _joined(*layers: nn.Linear) -> mx.array:
    """The matrices of several layers side by side, [inputs, all outputs]."""
    return mx.contiguous(mx.concatenate([layer.weight for layer in layers]).T)


def _angles(position: mx.array, width: int) -> tuple[mx.array, mx.array]:
    """Cosines and sines [width / 2] of one position (Su et al. 2021, equation 34)."""
    rates = mx.exp(mx.arange(width // 2) * (-2 * math.log(ROPE_BASE) / width))
    return mx.cos(position * rates), mx.sin(position * rates)
