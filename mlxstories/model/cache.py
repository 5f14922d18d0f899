"""Keys and values of the tokens so far, so that each new token costs one position."""

from __future__ import annotations

import mlx.core as mx

from mlxstories.model.config import ModelConfig


class KVCache:
    """Keys and values of every layer in buffers that have room for more, so that shapes seldom change.

    Attention reads the whole buffer, so one that is wide before it is needed costs time. All B rows stand at the same
    position: rows with longer prompts are fed their prompt while the others already generate.

    Args:
        room: tokens that the buffers hold; None: the context.

    Attributes:
        keys, values: one float32 [B, H, room, D / H] a layer.
        offset: int32 scalar, tokens held.
        starts: int32 [B, 1], position of the first token of the row's current story.
        recent: float32 [B, mixing - 1, D] a layer, what the next tokens take in; none without mixing.
    """

    def __init__(self, config: ModelConfig, batch_size: int, room: int | None = None):
        shape = (batch_size, config.heads, room or config.context, config.dim // config.heads)
        self.keys = [mx.zeros(shape) for _ in range(config.layers)]
        self.values = [mx.zeros(shape) for _ in range(config.layers)]
        self.offset = mx.array(0, dtype=mx.int32)
        self.starts = mx.zeros((batch_size, 1), dtype=mx.int32)
        recent = (batch_size, config.mixing - 1, config.dim)
        self.recent = [mx.zeros(recent) for _ in range(config.layers)] if config.mixing > 1 else []

    @property
    def room(self) -> int:
        """Tokens that the buffers hold."""
        return self.keys[0].shape[2]

    def widen(self, room: int) -> None:
        """Make room for so many tokens in all."""
        more = ((0, 0), (0, 0), (0, room - self.room), (0, 0))
        self.keys = [mx.pad(keys, more) for keys in self.keys]
        self.values = [mx.pad(values, more) for values in self.values]

    def update(self, layer: int, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Write [B, H, T, D / H] keys and values at the offset; returns the whole buffers."""
        self.keys[layer] = mx.slice_update(self.keys[layer], keys, self.offset, axes=(2,))
        self.values[layer] = mx.slice_update(self.values[layer], values, self.offset, axes=(2,))
        return self.keys[layer], self.values[layer]

    @property
    def state(self):
        """The arrays as a tree, to pass through a compiled function."""
        return self.keys, self.values, self.offset, self.starts, self.recent

    @classmethod
    def from_state(cls, state) -> KVCache:
        cache = cls.__new__(cls)
        keys, values, cache.offset, cache.starts, recent = state
        cache.keys, cache.values, cache.recent = list(keys), list(values), list(recent)
        return cache
