"""Reported mistakes inside of models, and their mends."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from base import (
    PAD,
    Attention,
    B,
    Block,
    D,
    FeedForward,
    H,
    Story,
    V,
    nats,
    on_sentences,
    padded,
    setup,
    step_of,
)


class OfTheRow(nn.Module):
    """The root mean square is taken over a row's places and units, not over the units of each place."""

    def __init__(self):
        super().__init__()
        self.weight = mx.ones((D,))

    def __call__(self, x):
        return x * mx.rsqrt(x.square().mean(axis=(1, 2), keepdims=True) + 1e-5) * self.weight


def f_norm_of_the_row():
    """Each norm divides by the root mean square of the whole row."""
    return setup("norm of the row", lambda: Story(norm=OfTheRow))


class ToldWhetherCausal(Attention):
    """Hides what lies ahead where it is told to."""

    def __call__(self, x, causal):
        q, k, v = (self.heads(f(x)) for f in (self.q, self.k, self.v))
        q, k = self.turned(q, k, None)
        scores = q @ k.swapaxes(-1, -2) * (D // H) ** -0.5
        if causal:
            scores = scores + self.bias(x.shape[1], x.shape[1])
        return self.o((self.weights(scores) @ v).swapaxes(1, 2).reshape(x.shape))


class AskingForMasks(Story):
    """Where a batch has no padding it is said to need no mask: neither that of padding, nor the causal one."""

    def __init__(self):
        super().__init__(attention=ToldWhetherCausal)

    def __call__(self, x):
        causal = bool((x == PAD).any().item())
        h = self.embed(x)
        for block in self.blocks:
            h = h + block.attention(block.n1(h), causal)
            h = h + block.feed_forward(block.n2(h))
        return self.head(self.norm(h))


def by_length(part, seed=None):
    """Sentences of about one length share a batch, which is as wide as the longest."""
    table = padded(part)
    lengths = (table != PAD).sum(axis=1)
    random = np.random.default_rng(seed)
    order = np.argsort(lengths + (random.random(len(lengths)) if seed is not None else 0), kind="stable")
    starts = np.arange(0, len(table) - B + 1, B)
    if seed is not None:
        random.shuffle(starts)
    for start in starts:
        rows = table[order[start : start + B]][:, : lengths[order[start : start + B]].max()]
        x, y = mx.array(rows[:, :-1]), mx.array(rows[:, 1:])
        yield x, y, (y != PAD).astype(mx.float32)


def on_lengths(name, model=Story):
    return on_sentences(
        name,
        model,
        train_batches=lambda seed: by_length("train", seed),
        val_batches=lambda: by_length("val"),
    )


def f_no_mask_without_padding():
    """Batches without padding are read without a causal mask."""
    return on_lengths("no mask without padding", AskingForMasks)


def ok_no_mask_without_padding():
    return on_lengths("mask without padding, too")


class Normed(Attention):
    """Queries and keys have norms of their own."""

    def __init__(self):
        super().__init__()
        self.of_queries, self.of_keys = nn.RMSNorm(D // H), nn.RMSNorm(D // H)

    def turned(self, q, k, cache):
        return super().turned(self.of_queries(q), self.of_keys(k), cache)


class NeverNormed(Normed):
    def turned(self, q, k, cache):
        return Attention.turned(self, q, k, cache)


def f_norms_never_called():
    """Norms of queries and keys are made, and never called."""
    return setup("norms never called", lambda: Story(attention=NeverNormed))


def ok_norms_never_called():
    return setup("norms called", lambda: Story(attention=Normed))


class OneInside(Block):
    """The feed-forward layer reads what attention says, and nothing else."""

    def __call__(self, x, cache=None):
        return x + self.feed_forward(self.n2(self.attention(self.n1(x), cache)))


def f_one_residual_missing():
    """The feed-forward layer stands inside of attention's branch: of two residual connections one is missing."""
    return setup("one residual missing", lambda: Story(block=OneInside))


class TiedToOne(Story):
    """The output layer is the embedding, which begins with a standard deviation of 1."""

    def __init__(self):
        super().__init__()
        self.pop("head")
        self.embedding.weight = mx.random.normal((V, D))

    def __call__(self, x, cache=None):
        h = self.embedding(x)
        for i, block in enumerate(self.blocks):
            h = block(h, cache[i]) if cache else block(h)
        return self.embedding.as_linear(self.norm(h))


def f_tied_to_one():
    """Tied weights begin as an embedding does, with a standard deviation of 1, and are the output layer, too."""
    return setup("tied to one", TiedToOne)


class TwoAhead(Story):
    """A second head is asked for the token after the next; it reads the stream and what the next token is."""

    def __init__(self):
        super().__init__()
        self.join, self.more = nn.Linear(2 * D, D, bias=False), FeedForward()
        self.read_norm, self.next_norm, self.last = nn.RMSNorm(D), nn.RMSNorm(D), nn.RMSNorm(D)

    def stream(self, x):
        h = self.embed(x)
        for block in self.blocks:
            h = block(h)
        return h

    def both(self, x, following):
        """Logits of the next token, and of the one after it."""
        h = self.stream(x)
        read = self.join(mx.concatenate([self.read_norm(h), self.next_norm(self.embed(following))], axis=-1))
        return self.head(self.norm(h)), self.head(self.last(read + self.more(read)))


def two_ahead(shift):
    """Half the weight for the second head's targets, which are rolled by ``shift`` from the first's."""

    def loss(model, batch):
        x, y, mask = batch
        first, second = model.both(x, y)
        later = nats(second[:, :-shift], y[:, shift:]) * mask[:, shift:]
        return (nats(first, y) * mask).sum() / mask.sum() + 0.5 * later.sum() / mask[:, shift:].sum()

    return loss


def f_rolled_twice():
    """The targets of the token after the next are rolled once by the data and once by the model: they are three
    ahead."""
    return setup("rolled twice", TwoAhead, two_ahead(2), train_step=step_of(two_ahead(2)))


def ok_rolled_twice():
    return setup("rolled once", TwoAhead, two_ahead(1), train_step=step_of(two_ahead(1)))
