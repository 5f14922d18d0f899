"""A plain decoder of a subject's size: the model that is known to be sound."""

from __future__ import annotations

import re
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map

from mlxstories.ladder.bench.arrays import is_pattern
from mlxstories.ladder.bench.model.gradients import depth_groups, is_block
from mlxstories.trees import by_path

_HEAD = ((128, 16), (512, 32))  # widths up to, and the size of a head there
_WIDEST_HEAD = 64
_WIDTH = 64  # where no table of tokens tells it
GPT_2 = 0.02  # standard deviation of its first weights
_ABOUT = 1.5  # times that, up to which it is taken for such
_DEEPEST = 48  # blocks of it, by the root of twice whose number it divides where a branch ends
_POSITIONS = re.compile(r"pos|wpe", re.IGNORECASE)


@dataclass(frozen=True)
class Shape:
    """What a reference has in common with a subject's model.

    Attributes:
        vocab: token ids.
        width: of the residual stream.
        depth: number of blocks.
        hidden: width inside the feed-forward layers, such that the numbers of parameters agree.
        positions: rows of a table of learned positions, or 0 for rotations of queries and keys.
        tied: whether one table serves input and output.
        dropped: share of what each branch makes that is left out in training.
        deviation: of all first matrices; None for the library's own.
    """

    vocab: int
    width: int
    depth: int
    hidden: int
    positions: int
    tied: bool
    dropped: float = 0.0
    deviation: float | None = None

    @property
    def heads(self) -> int:
        size = next((size for width, size in _HEAD if self.width <= width), _WIDEST_HEAD)
        return max(1, self.width // size)


def shape_of(model: nn.Module, vocab: int, length: int) -> Shape:
    """The shape of a plain decoder that is like ``model``, for rows of ``length`` tokens."""
    arrays = {name: a for name, a in by_path(model.parameters()).items() if a.ndim >= 2}
    # Without an embedding, a matrix with as many rows.
    rows = [a for a in arrays.values() if a.ndim == 2 and a.shape[0] == vocab]
    table = arrays.get(f"{table_of(model, vocab)}.weight", rows[0] if rows else None)
    width = table.shape[1] + table.shape[1] % 2 if table is not None else _WIDTH
    depth = max(1, min(12, sum(is_block(group) for group in depth_groups(arrays))))
    positions = _learned_positions(model, arrays, vocab, length)
    tied = table is not None and sum(a.shape[0] == table.shape[0] for a in arrays.values()) == 1
    total = sum(a.size for a in by_path(model.parameters()).values())
    left = total - vocab * width * (1 if tied else 2) - positions * width - depth * 4 * width**2
    hidden = min(max(left // (2 * depth * width), width), 8 * width)
    matrices = [
        a for a in by_path(model.trainable_parameters()).values() if a.ndim == 2 and not is_pattern(a)
    ]
    small = matrices and np.mean([begins_as_gpt_2(a) for a in matrices]) > 0.5
    return Shape(vocab, width, depth, int(hidden), positions, tied, deviation=GPT_2 if small else None)


def begins_as_gpt_2(matrix: mx.array) -> bool:
    """Whether its entries spread by about 0.02, whatever its width, or by as little less as at the end of a branch
    (Radford et al. 2019, section 2.3). In a narrow model that is little, and no mistake."""
    deviation = float(matrix.astype(mx.float32).std())
    return GPT_2 / (2 * _DEEPEST) ** 0.5 < deviation < _ABOUT * GPT_2


def table_of(model: nn.Module, vocab: int) -> str | None:
    """The path of the embedding of tokens: the smallest with a row for each; None where there is none."""
    sizes = {n: m.weight.shape[0] for n, m in model.named_modules() if isinstance(m, nn.Embedding)}
    return min((n for n in sizes if sizes[n] >= vocab), key=lambda name: sizes[name], default=None)


def _learned_positions(model: nn.Module, arrays: dict, vocab: int, length: int) -> int:
    """Rows of a table of positions among the parameters, found by its size or its name; 0 where there is none."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            rows = module.weight.shape[0]
            if length <= rows < 8 * length and (rows < vocab or _POSITIONS.search(name)):
                return rows
    named = [a for n, a in arrays.items() if _POSITIONS.search(n) and max(a.shape[:-1]) >= length]
    return max(named[0].shape[:-1]) if named else 0


def _drawn(module: nn.Module, shape: Shape) -> None:
    """Draw its matrices with the deviation of the shape, where it has one."""
    if shape.deviation is not None:
        module.update(
            tree_map(
                lambda a: shape.deviation * mx.random.normal(a.shape) if a.ndim == 2 else a,
                module.parameters(),
            )
        )


class PlainDecoder(nn.Module):
    """Norms before attention and feed-forward, causal attention, GELU; rotations or learned positions."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = shape
        self.tokens = nn.Embedding(shape.vocab, shape.width)
        if shape.positions:
            self.places = nn.Embedding(shape.positions, shape.width)
        self.blocks = [PlainBlock(shape) for _ in range(shape.depth)]
        self.norm = nn.RMSNorm(shape.width)
        if not shape.tied:
            self.head = nn.Linear(shape.width, shape.vocab, bias=False)
            self.head.weight = mx.random.normal(self.head.weight.shape) * GPT_2
        _drawn(self, shape)

    def __call__(self, tokens: mx.array) -> mx.array:
        """Logits [B, T, V] of tokens [B, T]."""
        x = self.tokens(tokens)
        if self.shape.positions:
            x = x + self.places(mx.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.tokens.as_linear(x) if self.shape.tied else self.head(x)


class PlainAttention(nn.Module):
    """Causal attention of several heads; rotated where no positions were learned."""

    def __init__(self, shape: Shape):
        super().__init__()
        width, self.heads = shape.width, shape.heads
        self.joint = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.rotate = None if shape.positions else nn.RoPE((width // self.heads) // 2 * 2)
        _drawn(self, shape)

    def __call__(self, x: mx.array, *_, **__) -> mx.array:
        rows, length, width = x.shape
        joint = self.joint(x).reshape(rows, length, 3, self.heads, -1)
        queries, keys, values = joint.transpose(2, 0, 3, 1, 4)
        if self.rotate is not None:
            queries, keys = self.rotate(queries), self.rotate(keys)
        mixed = mx.fast.scaled_dot_product_attention(
            queries, keys, values, scale=queries.shape[-1] ** -0.5, mask="causal"
        )
        return self.out(mixed.swapaxes(1, 2).reshape(rows, length, width))


class PlainFeedForward(nn.Module):
    """Two matrices with GELU between them."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.up, self.down = nn.Linear(shape.width, shape.hidden), nn.Linear(shape.hidden, shape.width)
        _drawn(self, shape)

    def __call__(self, x: mx.array, *_, **__) -> mx.array:
        return self.down(nn.gelu(self.up(x)))


class PlainBlock(nn.Module):
    """Attention and feed-forward, each added to what came in."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.first, self.second = nn.RMSNorm(shape.width), nn.RMSNorm(shape.width)
        self.attention, self.feed_forward = PlainAttention(shape), PlainFeedForward(shape)
        self.drop = nn.Dropout(shape.dropped)

    def __call__(self, x: mx.array, *_, **__) -> mx.array:
        x = x + self.drop(self.attention(self.first(x)))
        return x + self.drop(self.feed_forward(self.second(x)))
