"""Sound setups that look odd, as public code has them."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache
from itertools import pairwise

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from base import (
    ALPHABET,
    HELD,
    PAD,
    TOLD,
    Attention,
    D,
    Letters,
    Story,
    T,
    V,
    deal,
    mean_nats,
    nats,
    setup,
)
from mlx.utils import tree_flatten, tree_map


class Reversible(Story):
    """Two streams, each of which is told what a branch makes of the other."""

    def __call__(self, x, cache=None):
        a = b = self.embed(x)
        for block in self.blocks:
            a = a + block.attention(block.n1(b))
            b = b + block.feed_forward(block.n2(a))
        return self.head(self.norm(a + b))


def h_reversible():
    """Two streams of a reversible network: no branch is added to what it reads."""
    return setup("reversible", Reversible)


class Hourglass(Story):
    """The middle block reads means of four places, shifted so that none holds what is to come."""

    def __init__(self):
        super().__init__(layers=3)

    def __call__(self, x, cache=None):
        first, middle, last = self.blocks
        h = first(self.embed(x))
        length = h.shape[1]
        short = mx.pad(h, ((0, 0), (3, -(length + 3) % 4), (0, 0)))
        short = middle(short.reshape(h.shape[0], -1, 4, D).mean(axis=2))
        return self.head(self.norm(last(h + mx.repeat(short, 4, axis=1)[:, :length])))


def h_hourglass():
    return setup("hourglass", Hourglass)


class Pointer(Story):
    """A mixture of the softmax and of the characters so far, which an attention points at; returns logarithms."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.gate = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, 1)

    def __call__(self, x, cache=None):
        h = self.embed(x)
        for block in self.blocks:
            h = block(h)
        h, n = self.norm(h), x.shape[1]
        scores = self.query(h) @ self.key(h).swapaxes(-1, -2) * D**-0.5
        scores = mx.where(mx.tril(mx.ones((n, n))) > 0, scores, -1e9)
        copied = mx.softmax(scores, axis=-1) @ (x[..., None] == mx.arange(V)).astype(h.dtype)
        gate = mx.sigmoid(self.gate(h) + 2.0)
        return mx.log(gate * mx.softmax(self.head(h), axis=-1) + (1 - gate) * copied + 1e-9)


def h_pointer():
    """A share of the answer is copied from what was read."""
    return setup("pointer", Pointer)


def sharpness_aware(model, optimizer, batch):
    """The gradient is taken a step uphill, and used where the step began."""
    ask = nn.value_and_grad(model, mean_nats)
    value, gradient = ask(model, batch)
    length = mx.sqrt(sum((g * g).sum() for _, g in tree_flatten(gradient)))
    here = tree_map(mx.array, model.trainable_parameters())
    model.update(tree_map(lambda w, g: w + 0.05 * g / (length + 1e-12), here, gradient))
    _, gradient = ask(model, batch)
    model.update(here)
    optimizer.update(model, gradient)
    mx.eval(model.parameters(), optimizer.state, value)
    return value


def h_sharpness_aware():
    """Two gradients an update: the first says where the second is taken."""
    return setup("sharpness aware", train_step=sharpness_aware)


UPDATES, PEAK = 150, 4e-3


class OneCycle(optim.AdamW):
    """The rate rises over 30 % of the updates and falls to nothing; the momentum does the reverse."""

    def __init__(self):
        super().__init__(self.rate, bias_correction=True)

    @staticmethod
    def height(step):
        """0 to 1 and back."""
        up, down = step / (0.3 * UPDATES), (step - 0.3 * UPDATES) / (0.7 * UPDATES)
        return mx.where(
            step < 0.3 * UPDATES,
            (1 - mx.cos(math.pi * mx.minimum(up, 1.0))) / 2,
            (1 + mx.cos(math.pi * mx.minimum(down, 1.0))) / 2,
        )

    def rate(self, step):
        return PEAK * (0.04 + 0.96 * self.height(step))

    def apply_single(self, gradient, parameter, state):
        b1, b2 = 0.95 - 0.1 * self.height(self.step), self.betas[1]
        state["m"] = b1 * state["m"] + (1 - b1) * gradient
        state["v"] = b2 * state["v"] + (1 - b2) * mx.square(gradient)
        spread = mx.sqrt(state["v"] / (1 - b2 ** self.step.astype(gradient.dtype))) + self.eps
        return parameter - self.learning_rate * state["m"] / spread


def h_one_cycle():
    """One cycle of the rate, and of the momentum against it."""
    return setup("one cycle", optimizer=OneCycle, updates=UPDATES)


def poly(model, batch):
    """Nats, and the share that the target does not get."""
    x, y, mask = batch
    told = nats(model(x), y)
    return ((told + 1 - mx.exp(-told)) * mask).sum() / mask.sum()


def h_poly_loss():
    return setup("poly loss", loss=poly)


class Pieces(Letters):
    """Pairs of characters that are common stand for one id; in training a tenth of the merges is left out."""

    merges = 40
    vocab_size = V + merges

    @staticmethod
    @cache
    def ranks():
        """(left, right) to id, the first learned first."""
        told, found = Letters().encode(" ".join(TOLD)), {}
        while len(found) < Pieces.merges:
            pair = Counter(pairwise(told)).most_common(1)[0][0]
            found[pair] = V + len(found)
            told = joined(told, pair, found[pair])
        return found

    def encode(self, text, left_out=0.0, rng=None):
        told = super().encode(text)
        for pair, new in self.ranks().items():
            told = joined(told, pair, new, left_out, rng)
        return told

    def decode(self, ids):
        apart = {new: pair for pair, new in self.ranks().items()}

        def letters(i):
            return "".join(map(letters, apart[i])) if i in apart else ALPHABET[i - 3] if i >= 3 else ""

        return "".join(letters(int(i)) for i in ids)


def joined(told, pair, new, left_out=0.0, rng=None):
    """The ids with all, or most, of these neighbours put together."""
    out, at = [], 0
    while at < len(told):
        here = tuple(told[at : at + 2]) == pair and (rng is None or rng.random() >= left_out)
        out.append(new if here else told[at])
        at += 2 if here else 1
    return out


@cache
def segmented(part, seed=None):
    """int32 [N, T + 1]"""
    rng = None if seed is None else np.random.default_rng(seed)
    told = Pieces().encode(" ".join(TOLD if part == "train" else HELD), 0.1, rng)
    return np.array([told[at : at + T + 1] for at in range(0, len(told) - T, T)], np.int32)


def h_merges_left_out():
    """Every epoch cuts the text into other pieces: merges are left out by chance."""
    return setup(
        "merges left out",
        lambda: Story(size=Pieces.vocab_size),
        vocab_size=Pieces.vocab_size,
        tokenizer=Pieces(),
        train_batches=lambda seed: deal(segmented("train", seed), seed, lambda rows: rows[:, 1:] != PAD),
        val_batches=lambda: deal(segmented("val")),
    )


@cache
def overlapping():
    """int32 [N, T + 1]: held-out text, each row half of the one before."""
    told = np.array(Letters().encode(" ".join(HELD)), np.int32)
    return np.stack([told[at : at + T + 1] for at in range(0, len(told) - T, T // 2)])


def second_half(rows):
    return np.broadcast_to(np.arange(T) >= T // 2, (len(rows), T))


def h_strided_validation():
    """Validation's rows overlap, and the first half of each is context only."""
    return setup("strided validation", val_batches=lambda: deal(overlapping(), counts=second_half))


class Talking(Attention):
    """Scores of all heads are mixed by a learned matrix, before and after the softmax."""

    def __init__(self):
        super().__init__()
        self.before, self.after = mx.eye(4), mx.eye(4)

    def weights(self, scores):
        hidden = scores < -1e8
        mixed = mx.einsum("gh,bhqk->bgqk", self.before, mx.where(hidden, 0.0, scores))
        return mx.einsum("gh,bhqk->bgqk", self.after, mx.softmax(mx.where(hidden, -1e9, mixed), axis=-1))


def h_talking_heads():
    """Heads talk to each other: weights may be negative, and need not add up to one."""
    return setup("talking heads", lambda: Story(attention=Talking))
