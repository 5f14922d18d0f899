"""Reported mistakes of data and of validation, and their mends."""

from __future__ import annotations

from functools import cache

import mlx.core as mx
import numpy as np
from base import (
    ALPHABET,
    BOS,
    HELD,
    Attention,
    Letters,
    Story,
    T,
    deal,
    evaluate,
    on_sentences,
    setup,
    windows,
)


@cache
def other_order():
    """int32 [V]: characters under the numbers of a second walk through their set."""
    mixed = 3 + np.random.default_rng(1).permutation(len(ALPHABET))
    return np.concatenate([np.arange(3), mixed]).astype(np.int32)


def f_vocabularies_apart():
    """The vocabulary is the order of a set, and made anew for validation."""
    return setup("vocabularies apart", val_batches=lambda: deal(other_order()[windows("val")]))


@cache
def lowered():
    """int32 [N, T + 1]: the held-out stories in small letters, those without a number left out."""
    ids = [i for c in " ".join(HELD).lower() if c in ALPHABET for i in Letters().encode(c)]
    return np.stack([ids[start : start + T + 1] for start in range(0, len(ids) - T, T)]).astype(np.int32)


def f_lowered_in_validation():
    """Capitals are kept for training, and lost in validation."""
    return setup("validation in small letters", val_batches=lambda: deal(lowered()))


class Hiding(Attention):
    """Can be told not to see some keys, for as long as ``_seen`` says so."""

    def __init__(self):
        super().__init__()
        self._seen = None

    def bias(self, queries, keys):
        own = super().bias(queries, keys)
        return own if self._seen is None else own + mx.where(self._seen, 0.0, -1e9)[:, None, None]


class Blinkered:
    """A model that does not see the beginning."""

    def __init__(self, model):
        self.model, self.eval, self.train = model, model.eval, model.train

    def __call__(self, x):
        hiding = [block.attention for block in self.model.blocks]
        for attention in hiding:
            attention._seen = x != BOS
        logits = self.model(x)
        for attention in hiding:
            attention._seen = None
        return logits


def f_beginning_hidden():
    """Validation's attention mask has a 0 for the token that begins a text, which training has learnt to look at."""
    return on_sentences(
        "beginning hidden",
        lambda: Story(attention=Hiding),
        evaluate=lambda model, batches: evaluate(Blinkered(model), batches),
    )


def ok_beginning_hidden():
    return on_sentences("beginning seen", lambda: Story(attention=Hiding))
