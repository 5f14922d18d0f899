"""The parts of a block: norms, attention, feed-forward."""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn

from mlxstories.backend import kernels
from mlxstories.backend.embedding import repeatable
from mlxstories.model.cache import KVCache
from mlxstories.model.config import ModelConfig
from mlxstories.model.mixing import Mixing

EPS = 1e-5
ROPE_BASE = 10000.0


def build_norm(config: ModelConfig) -> nn.Module:
    """The norm of a configuration, over the last of [B, T, D]."""
    return nn.RMSNorm(config.dim, EPS) if config.norm == "rms" else nn.LayerNorm(config.dim, EPS)


class Embedding(nn.Embedding):
    """MLX's embedding, with a gradient that repeats on a GPU."""

    def __call__(self, tokens: mx.array) -> mx.array:
        """Int [...] in [0, V) -> [..., D]."""
        return repeatable(super().__call__(tokens), self.weight, tokens)


class Attention(nn.Module):
    """Multi-head attention without biases (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.heads = config.heads
        self.rope = config.positions == "rope"
        self.qk_norm = config.qk_norm
        self.query = nn.Linear(config.dim, config.dim, bias=False)
        self.key = nn.Linear(config.dim, config.dim, bias=False)
        self.value = nn.Linear(config.dim, config.dim, bias=False)
        self.out = nn.Linear(config.dim, config.dim, bias=False)

    def __call__(
        self, x: mx.array, mask: mx.array | str | None, layer: int, cache: KVCache | None
    ) -> mx.array:
        """x [B, T, D] -> [B, T, D]."""
        queries, keys, values = (
            projection(x).reshape(*x.shape[:2], self.heads, -1).swapaxes(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        if self.qk_norm:
            queries, keys = mx.fast.rms_norm(queries, None, EPS), mx.fast.rms_norm(keys, None, EPS)
        if self.rope:
            offset = 0 if cache is None else cache.offset
            queries, keys = (kernels.rotate(part, offset, ROPE_BASE) for part in (queries, keys))
        if cache is not None:
            keys, values = cache.update(layer, keys, values)
        scale = 1 / math.sqrt(queries.shape[-1])
        mixed = kernels.attention(queries, keys, values, scale, mask, self.training)
        return self.out(mixed.swapaxes(1, 2).reshape(x.shape))


class FeedForward(nn.Module):
    """Two matrices around an activation, or three for "swiglu" (Shazeer 2020, equation 5)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.kind = config.feed_forward
        self.up = nn.Linear(config.dim, config.hidden, bias=False)
        if self.kind == "swiglu":
            self.gate = nn.Linear(config.dim, config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, config.dim, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        """x [B, T, D] -> [B, T, D]."""
        return self.down(self.activated(*(layer(x) for layer in self.widening)))

    @property
    def widening(self) -> tuple[nn.Linear, ...]:
        """The layers that widen the stream."""
        return (self.gate, self.up) if self.kind == "swiglu" else (self.up,)

    def activated(self, *widened: mx.array) -> mx.array:
        """The activation of what the widening layers give, [..., hidden] each."""
        if self.kind == "swiglu":
            return kernels.swiglu(*widened)
        if self.kind == "gelu":
            return kernels.gelu(*widened)
        return mx.square(mx.maximum(*widened, 0))


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and added to the stream (Xiong et al. 2020)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.attention_norm = build_norm(config)
        if config.mixing > 1:
            self.neighbours = Mixing(config)
        self.attention = Attention(config)
        self.feed_forward_norm = build_norm(config)
        self.feed_forward = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def __call__(
        self, x, mask, layer: int, cache: KVCache | None, places: mx.array | None = None
    ) -> mx.array:
        """x [B, T, D] -> [B, T, D]; ``places`` are those in the story, which mixing alone asks for."""
        x = x + self.dropout(self.attention(self.mixed(x, places, layer, cache), mask, layer, cache))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))

    def mixed(self, x: mx.array, places: mx.array | None, layer: int, cache: KVCache | None) -> mx.array:
        """What attention reads of the stream [B, T, D]."""
        x = self.attention_norm(x)
        if "neighbours" not in self:
            return x
        x, recent = self.neighbours(x, places, None if cache is None else cache.recent[layer])
        if cache is not None:
            cache.recent[layer] = recent
        return x
