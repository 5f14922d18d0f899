"""What enters the first block, and what blocks add to it."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import pytest
from tiny import V, judged, subject

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.block_input import stream_start


class Loud(nn.Module):
    """Two blocks that add their linear layer's output times a size."""

    def __init__(self, size):
        super().__init__()
        self.embed, self.head = nn.Embedding(V, 16), nn.Linear(16, V)
        self.blocks = [Branch(size) for _ in range(2)]

    def __call__(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(nn.RMSNorm(16)(x))


class Scaled(nn.Module):
    """A linear layer's output times a size."""

    def __init__(self, size):
        super().__init__()
        self.linear, self.size = nn.Linear(16, 16), size

    def __call__(self, x):
        return self.size * self.linear(x)


class Masked(nn.Module):
    """A block that takes more than the stream."""

    def __init__(self, size):
        super().__init__()
        self.norm, self.branch = nn.RMSNorm(16), Scaled(size)

    def __call__(self, x, mask):
        return x + self.branch(self.norm(x)) * mask


class LoudMasked(Loud):
    def __init__(self, size):
        super().__init__(size)
        self.blocks = [Masked(size) for _ in range(2)]

    def __call__(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, mx.ones((tokens.shape[1], 1)))
        return self.head(nn.RMSNorm(16)(x))


class Branch(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.norm, self.linear, self.size = nn.RMSNorm(16), nn.Linear(16, 16), size

    def __call__(self, x):
        return x + self.size * self.linear(self.norm(x))


@pytest.mark.parametrize(("size", "loud"), [(1.0, False), (20.0, False), (1000.0, True)])
@pytest.mark.parametrize("model", [Loud, LoudMasked])
def test_what_blocks_add_is_measured(model, size, loud):
    bench = Bench(subject(model=lambda: model(size)))
    start = stream_start(bench)
    assert start.added * start.stream == pytest.approx(0.6 * size, rel=0.5)
    said = judged("scales inside the model", bench)
    assert (("extreme-scale", "error") in said) is loud
