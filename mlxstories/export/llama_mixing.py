"""A llama whose tokens take in their neighbours before attention, for mlx-lm.

An export of such a model carries this file beside its weights: mlx-lm has no such architecture of its own and builds
the model from here (``model_file`` in ``config.json``). It needs mlx and mlx-lm alone. A row is one story.

Annotations are not postponed: a dataclass would look for its module, which mlx-lm does not register.
"""

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.base import BaseModelArgs, create_attention_mask, scaled_dot_product_attention
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache


@dataclass
class ModelArgs(BaseModelArgs):
    """What ``config.json`` says of the model.

    Attributes:
        mixing: tokens, itself included, that each takes in before attention.
        qk_norm: RMS norm of queries and keys, without weights.
        hidden_act: of the feed-forward part, "silu" for SwiGLU or "relu2" for a squared ReLU without a gate.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int
    num_attention_heads: int
    rms_norm_eps: float
    rope_theta: float
    tie_word_embeddings: bool
    mixing: int
    qk_norm: bool
    hidden_act: str


class Mixing(nn.Module):
    """Adds a weighted sum of the tokens before to each, feature by feature (a canon layer, Allen-Zhu 2025).

    y[t] = x[t] + sum over n of taps[n - 1] * x[t - n],     n = 1 ... mixing - 1
    """

    def __init__(self, args: ModelArgs):
        super().__init__()
        self.taps = mx.zeros((args.mixing - 1, args.hidden_size))

    def __call__(self, x: mx.array, cache: ArraysCache | None) -> mx.array:
        """x [B, T, D] -> [B, T, D]; the cache holds the last ``mixing - 1`` tokens and, of a batch, its padding."""
        count, (rows, length, width) = len(self.taps), x.shape
        mask = None if cache is None else cache.make_mask(length)
        if mask is not None:
            x = mx.where(mask[..., None], x, 0)
        earlier = None if cache is None else cache[0]
        if earlier is None:
            earlier = mx.zeros((rows, count, width), x.dtype)
        row = mx.concatenate([earlier, x], axis=1)
        if cache is not None:
            if cache.lengths is None:
                cache[0] = row[:, length:]
            else:  # rows are padded behind
                ends = mx.clip(cache.lengths, 0, length)
                cache[0] = mx.take_along_axis(row, (ends[:, None] + mx.arange(count))[..., None], axis=1)
            cache.advance(length)
        for n in range(1, count + 1):
            x = x + row[:, count - n : count - n + length] * self.taps[n - 1]
        return x


class Attention(nn.Module):
    """Multi-head attention without biases, with rotary positions."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        dim, self.args = args.hidden_size, args
        self.q_proj = nn.Linear(dim, dim, bias=False)
        self.k_proj = nn.Linear(dim, dim, bias=False)
        self.v_proj = nn.Linear(dim, dim, bias=False)
        self.o_proj = nn.Linear(dim, dim, bias=False)
        self.rope = nn.RoPE(dim // args.num_attention_heads, traditional=False, base=args.rope_theta)

    def __call__(self, x: mx.array, mask: Any, cache: KVCache | None) -> mx.array:
        """x [B, T, D] -> [B, T, D]."""
        queries, keys, values = (
            projection(x).reshape(*x.shape[:2], self.args.num_attention_heads, -1).swapaxes(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if self.args.qk_norm:
            queries, keys = (mx.fast.rms_norm(part, None, self.args.rms_norm_eps) for part in (queries, keys))
        offset = 0 if cache is None else cache.offset
        queries, keys = self.rope(queries, offset=offset), self.rope(keys, offset=offset)
        if cache is not None:
            keys, values = cache.update_and_fetch(keys, values)
        scale = queries.shape[-1] ** -0.5
        mixed = scaled_dot_product_attention(queries, keys, values, cache=cache, scale=scale, mask=mask)
        return self.o_proj(mixed.swapaxes(1, 2).reshape(x.shape))


class FeedForward(nn.Module):
    """SwiGLU, or two matrices around a squared ReLU."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        if args.hidden_act == "silu":
            self.gate_proj = nn.Linear(args.hidden_size, args.intermediate_size, bias=False)
        self.up_proj = nn.Linear(args.hidden_size, args.intermediate_size, bias=False)
        self.down_proj = nn.Linear(args.intermediate_size, args.hidden_size, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        """x [B, T, D] -> [B, T, D]."""
        up = self.up_proj(x)
        if "gate_proj" in self:
            return self.down_proj(nn.silu(self.gate_proj(x)) * up)
        return self.down_proj(mx.square(nn.relu(up)))


class Block(nn.Module):
    """Attention behind a norm and the mixing, feed-forward behind a norm, each added to the stream."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(args.hidden_size, args.rms_norm_eps)
        self.mixing = Mixing(args)
        self.self_attn = Attention(args)
        self.post_attention_layernorm = nn.RMSNorm(args.hidden_size, args.rms_norm_eps)
        self.mlp = FeedForward(args)

    def __call__(self, x: mx.array, mask: Any, cache: CacheList | None) -> mx.array:
        """x [B, T, D] -> [B, T, D]."""
        held, recent = (None, None) if cache is None else (cache[0], cache[1])
        x = x + self.self_attn(self.mixing(self.input_layernorm(x), recent), mask, held)
        return x + self.mlp(self.post_attention_layernorm(x))


class Body(nn.Module):
    """Embedding, blocks and the last norm."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        self.embed_tokens = nn.Embedding(args.vocab_size, args.hidden_size)
        self.layers = [Block(args) for _ in range(args.num_hidden_layers)]
        self.norm = nn.RMSNorm(args.hidden_size, args.rms_norm_eps)

    def __call__(self, tokens: mx.array, cache: list[CacheList] | None) -> mx.array:
        """Int [B, T] -> [B, T, D]."""
        x = self.embed_tokens(tokens)
        mask = create_attention_mask(x, None if cache is None else cache[0][0])
        for layer, held in zip(self.layers, cache or [None] * len(self.layers), strict=True):
            x = layer(x, mask, held)
        return self.norm(x)


class Model(nn.Module):
    """What mlx-lm builds and loads the weights into."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        self.args, self.model_type = args, args.model_type
        self.model = Body(args)
        if not args.tie_word_embeddings:
            self.lm_head = nn.Linear(args.hidden_size, args.vocab_size, bias=False)

    def __call__(self, inputs: mx.array, cache: list[CacheList] | None = None) -> mx.array:
        """Logits [B, T, V] of int tokens [B, T]; with a cache, the tokens follow those that it holds."""
        features = self.model(inputs, cache)
        tied = self.args.tie_word_embeddings
        return self.model.embed_tokens.as_linear(features) if tied else self.lm_head(features)

    @property
    def layers(self) -> list[nn.Module]:
        return self.model.layers

    def make_cache(self) -> list[CacheList]:
        """A layer's keys and values, and the tokens that its next ones take in."""
        return [CacheList(KVCache(), ArraysCache(1)) for _ in self.layers]
