"""The transformer: embedding, blocks, head."""

from __future__ import annotations

import math
import re

import mlx.core as mx
import mlx.nn as nn

from mlxstories.backend import memory
from mlxstories.errors import StoriesError
from mlxstories.model.cache import KVCache
from mlxstories.model.config import ModelConfig
from mlxstories.model.layers import Block, Embedding, build_norm
from mlxstories.trees import by_path

EMBEDDING_STD = 0.02  # Radford et al. 2019
TIED_LOGIT = 5.12  # the most a tied model may say at first for the token it just read, 0.02 * 256


class Transformer(nn.Module):
    """A pre-norm transformer; with random weights from ``mx.random``.

    Matrices start at N(0, 1 / fan-in), which keeps activations at unit scale at any width. Embeddings start at
    N(0, 0.02²), or less where a wide tied model would bet on the token it has just read. The matrices that
    write to the residual stream are multiplied by the embedding's deviation over ``sqrt(2 layers)``: all blocks
    together then add as much as the embedding holds (Radford et al. 2019, section 2.3). Were they larger, the
    tokens would drown in the stream, and copying a name from earlier in the story would be learnt late.

    Args:
        config: shape and parts.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.embed = Embedding(config.vocab_size, config.dim)
        if config.positions == "learned":
            self.position = Embedding(config.context, config.dim)
        self.blocks = [Block(config) for _ in range(config.layers)]
        self.norm = build_norm(config)
        self.dropout = nn.Dropout(config.dropout)
        if not config.tied:
            self.head_projection = nn.Linear(config.dim, config.vocab_size, bias=False)
        self._initialize()

    def __call__(self, tokens: mx.array, cache: KVCache | None = None) -> mx.array:
        """Logits [B, T, V] for int tokens [B, T]; with a cache, the tokens follow those that it holds.

        Raises:
            StoriesError: for rows longer than the context, or an encoder with a cache.
        """
        return self.head(self.features(tokens, cache))

    def new_cache(self, batch_size: int, room: int | None = None) -> KVCache:
        """An empty cache for ``batch_size`` rows, with buffers for ``room`` tokens at first (None: for the context).

        Raises:
            StoriesError: it does not fit into memory.
        """
        cache, context = KVCache(self.config, batch_size, room), self.config.context
        memory.require(
            sum(array.nbytes for array in by_path(cache.state).values()),  # not there yet
            f"continuing {batch_size:,} rows of up to {context:,} tokens",
            "take fewer, or a model of a smaller context",
        )
        return cache

    def features(self, tokens: mx.array, cache: KVCache | None = None) -> mx.array:
        """The normed output of the last block [B, T, D] for int tokens [B, T]."""
        config = self.config
        if tokens.shape[1] > config.context:
            raise StoriesError(
                f"rows of {tokens.shape[1]} tokens are longer than the model's context of {config.context}; "
                "shorten them or take a larger context"
            )
        if cache is not None and config.arch == "encoder":
            raise StoriesError("an encoder sees both sides, so it cannot use a key-value cache; pass none")
        index = mx.arange(tokens.shape[1], dtype=mx.int32)[None]
        if cache is not None:
            index = index + cache.offset
        starts = self.story_starts(tokens, index, cache)
        mask = self.attention_mask(index, starts, cache)
        places = None if starts is None else index - starts
        x = self.dropout(self.embedded(tokens, index if places is None else places))
        more = (places,) if config.mixing > 1 else ()  # blocks of other makes need not know of it
        for layer, block in enumerate(self.blocks):
            x = block(x, mask, layer, cache, *more)
        if cache is not None:
            cache.offset = cache.offset + tokens.shape[1]
            if starts is not None:
                cache.starts = starts[:, -1:]
        return self.norm(x)

    @property
    def output_weight(self) -> mx.array:
        """The matrix [V, D] that gives logits: the embedding of a tied model."""
        return (self.embed if self.config.tied else self.head_projection).weight

    def head(self, features: mx.array) -> mx.array:
        """Logits [B, T, V] of features [B, T, D]."""
        return self.embed.as_linear(features) if self.config.tied else self.head_projection(features)

    def story_starts(self, tokens, index, cache: KVCache | None) -> mx.array | None:
        """Position [B, T] of the first token of each token's story."""
        if self.config.separator is None:
            return None
        earlier = 0 if cache is None else cache.starts
        return mx.cummax(mx.where(tokens == self.config.separator, index, earlier), axis=1)

    def attention_mask(self, index, starts, cache: KVCache | None) -> mx.array | str | None:
        """True where a query may see a key, [B or 1, 1, T, keys], the same for all layers."""
        if self.config.arch == "encoder":
            return None if starts is None else (starts[:, :, None] == starts[:, None, :])[:, None]
        if cache is None and starts is None:
            return "causal"
        keys = index if cache is None else mx.arange(cache.room, dtype=mx.int32)[None]
        seen = keys[:, None, :] <= index[:, :, None]
        if starts is not None:
            seen = seen & (keys[:, None, :] >= starts[:, :, None])
        return seen[:, None]

    def embedded(self, tokens: mx.array, positions: mx.array) -> mx.array:
        """Tokens int [B, T] at their positions in the story: [B, T, D]."""
        x = self.embed(tokens)
        if self.config.positions == "learned":
            return x + self.position(positions)
        if self.config.positions == "sinusoidal":
            return x * math.sqrt(self.config.dim) + sinusoids(positions, self.config.dim).astype(x.dtype)
        return x

    def _initialize(self) -> None:
        embedding = min(EMBEDDING_STD, TIED_LOGIT / self.config.dim)
        residual = embedding / math.sqrt(2 * self.config.layers)
        weights = []
        for name, value in by_path(self.parameters()).items():
            if name in ("embed.weight", "position.weight"):
                std = embedding
            elif value.ndim == 2 and not name.endswith("taps"):
                std = 1 / math.sqrt(value.shape[1])
                if name == "head_projection.weight":
                    std = EMBEDDING_STD
                elif name.endswith(("out.weight", "down.weight")):
                    std *= residual
            else:
                continue  # norms start as the identity, and so does mixing
            weights.append((name, std * mx.random.normal(value.shape)))
        self.load_weights(weights, strict=False)


def sinusoids(positions: mx.array, dim: int) -> mx.array:
    """Sines and cosines [..., dim] of int positions (Vaswani et al. 2017, section 3.5), sines first."""
    rates = mx.exp(mx.arange(dim // 2) * (-2 * math.log(10000) / dim))
    angles = positions[..., None] * rates
    return mx.concatenate([mx.sin(angles), mx.cos(angles)], axis=-1)


def parameter_count(model: nn.Module) -> int:
    """Numbers that training sets; a tied embedding counts once."""
    return sum(value.size for value in by_path(model.parameters()).values())


def block_of(parameter: str) -> str:
    """``blocks.<n>`` for a parameter of the n-th block, else the module's name, such as ``embed``; of our
    models and mlx-lm's."""
    numbered = re.search(r"\.(\d+)\.", parameter)
    return f"blocks.{numbered[1]}" if numbered else parameter.split(".")[-2]
