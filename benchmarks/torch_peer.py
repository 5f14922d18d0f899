"""The project's model in plain PyTorch, as one would write it there, and a training step for it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

BASE, EPS = 10000.0, 1e-5


def norm(dim: int, kind: str) -> nn.Module:
    return nn.RMSNorm(dim, EPS) if kind == "rms" else nn.LayerNorm(dim, EPS)


class Attention(nn.Module):
    def __init__(self, shape: dict):
        super().__init__()
        dim = shape["dim"]
        self.heads = shape["heads"]
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        half = dim // self.heads // 2
        self.rotates = shape["positions"] == "rope"
        angles = torch.outer(torch.arange(shape["context"]), BASE ** (-torch.arange(half) / half))
        self.register_buffer("cos", torch.cat([angles.cos()] * 2, -1))
        self.register_buffer("sin", torch.cat([angles.sin()] * 2, -1))

    def rotate(self, x):
        first, second = x.chunk(2, dim=-1)
        return x * self.cos + torch.cat([-second, first], -1) * self.sin

    def forward(self, x):
        q, k, v = (
            f(x).view(*x.shape[:2], self.heads, -1).transpose(1, 2)
            for f in (self.query, self.key, self.value)
        )
        if self.rotates:
            q, k = self.rotate(q), self.rotate(k)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(x.shape))


class FeedForward(nn.Module):
    def __init__(self, shape: dict, hidden: int):
        super().__init__()
        self.gated = shape["feed_forward"] == "swiglu"
        self.up = nn.Linear(shape["dim"], hidden, bias=False)
        if self.gated:
            self.gate = nn.Linear(shape["dim"], hidden, bias=False)
        self.down = nn.Linear(hidden, shape["dim"], bias=False)

    def forward(self, x):
        if self.gated:
            return self.down(F.silu(self.gate(x)) * self.up(x))
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, shape: dict, hidden: int):
        super().__init__()
        self.attention_norm, self.attention = norm(shape["dim"], shape["norm"]), Attention(shape)
        self.feed_forward_norm = norm(shape["dim"], shape["norm"])
        self.feed_forward = FeedForward(shape, hidden)

    def forward(self, x):
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.feed_forward_norm(x))


class Model(nn.Module):
    """A decoder with tied embeddings."""

    def __init__(self, shape: dict, hidden: int):
        super().__init__()
        self.embed = nn.Embedding(shape["vocab_size"], shape["dim"])
        if shape["positions"] == "learned":
            self.position = nn.Embedding(shape["context"], shape["dim"])
        self.blocks = nn.ModuleList(Block(shape, hidden) for _ in range(shape["layers"]))
        self.norm = norm(shape["dim"], shape["norm"])

    def forward(self, tokens, targets):
        x = self.embed(tokens)
        if hasattr(self, "position"):
            x = x + self.position.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy(F.linear(self.norm(x), self.embed.weight).flatten(0, 1), targets.flatten())


def build(shape: dict, tokens: np.ndarray, dtype: str, folder: Path, compiled: bool):
    """A step that returns its loss, what is known of the model, and the memory before it was built."""
    from training import BETAS, CLIP, RATE, resident

    base = resident("VmRSS")
    weights = {name: torch.tensor(w) for name, w in np.load(folder / "weights.npz").items()}
    model = Model(shape, len(weights["blocks.0.feed_forward.up.weight"]))
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and all(name.endswith(("cos", "sin")) for name in missing)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=BETAS, weight_decay=0.0, fused=True)
    batches = [(torch.tensor(rows[:, :-1]).long(), torch.tensor(rows[:, 1:]).long()) for rows in tokens]
    forward = torch.compile(model) if compiled else model
    low = torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16")

    def step(index: int) -> float:
        optimizer.zero_grad(set_to_none=True)
        with low:
            loss = forward(*batches[index % len(batches)])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        value = loss.item()
        assert math.isfinite(value)
        return value

    return step, {"parameters": sum(p.numel() for p in model.parameters())}, base
