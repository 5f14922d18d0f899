"""A storyteller written by someone who knows PyTorch well. It trains, and it is wrong in three places.

    mlxstories debug examples/broken.py

docs/examples.md tells what the ladder says; fixed.py is the same file, mended.
"""

from __future__ import annotations

import re

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from mlxstories.data.source import texts
from mlxstories.ladder import Subject

CONTEXT, BATCH_SIZE, DIM, LAYERS, HEADS = 96, 8, 64, 2, 4
TRAIN, HELD_OUT = ([re.findall(r"\w+", text.lower()) for text in texts(n, seed=n)] for n in (200, 40))
VOCABULARY = ["<pad>", *sorted({word for story in [*TRAIN, *HELD_OUT] for word in story})]
IDS = {word: number for number, word in enumerate(VOCABULARY)}


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiHeadAttention(DIM, HEADS)
        self.feed_forward = nn.Sequential(nn.Linear(DIM, 4 * DIM), nn.GELU(), nn.Linear(4 * DIM, DIM))
        self.norm_1, self.norm_2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)

    def __call__(self, x, mask):
        y = self.norm_1(x)
        x = x + self.attention(y, y, y, mask)
        return x + self.feed_forward(self.norm_2(x))


class Storyteller(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(len(VOCABULARY), DIM)
        self.positions = nn.Embedding(CONTEXT, DIM)
        self.blocks = [Block() for _ in range(LAYERS)]
        self.norm = nn.LayerNorm(DIM)
        self.head = nn.Linear(DIM, len(VOCABULARY))

    def __call__(self, inputs):
        length = inputs.shape[1]
        x = self.tokens(inputs) + self.positions(mx.arange(length))
        mask = mx.triu(mx.ones((length, length), dtype=mx.bool_), k=1)  # True hides the future
        for block in self.blocks:
            x = block(x, mask)
        return self.head(self.norm(x))


def batches(stories, rng=None):
    """Inputs, targets and what is real, one story a row."""
    order = rng.permutation(len(stories)) if rng else range(len(stories))
    for start in range(0, len(stories) - BATCH_SIZE + 1, BATCH_SIZE):
        rows = [[IDS[word] for word in stories[i]] for i in order[start : start + BATCH_SIZE]]
        rows = np.array([(row + [0] * CONTEXT)[: CONTEXT + 1] for row in rows], dtype=np.int32)
        inputs, targets = rows[:, :-1], rows[:, 1:]
        yield mx.array(inputs), mx.array(targets), mx.array((targets != 0).astype(np.float32))


def loss(model, batch):
    inputs, targets, _ = batch
    return nn.losses.cross_entropy(model(inputs), targets, reduction="mean")


def optimizer():
    return optim.AdamW(learning_rate=1e-3)


def subject():
    return Subject(
        name="storyteller",
        model=Storyteller,
        vocab_size=len(VOCABULARY),
        train_batches=lambda seed: batches(TRAIN, np.random.default_rng(seed)),
        val_batches=lambda: batches(HELD_OUT),
        loss=loss,
        optimizer=optimizer,
    )
